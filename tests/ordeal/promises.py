"""Asks a mesh which of its promises it makes already."""

import uuid

import httpx
from grpc import StatusCode, aio
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1.document_pb2_grpc import DocumentServiceStub
from loremesh_kit.identity import PRINCIPAL_HEADER, REQUEST_ID_HEADER, TENANT_HEADER

from tests.ordeal.checker import Promise
from tests.ordeal.mesh import Mesh

_SECONDS = 30.0


async def made_by(mesh: Mesh) -> frozenset[Promise]:
    """Those whose rpc, or whose effect on a repeated request, is there."""
    found = set()
    if await _resolves_versions(mesh.state().parts["ingestion"].address):
        found.add(Promise.STRICT_SEARCH)
    if await _heeds_keys(mesh.target, "/api/v1/vector_stores", "display_name"):
        found.add(Promise.IDEMPOTENCY)
    if await _heeds_keys(mesh.target, "/api/v1/documents", "content"):
        found.add(Promise.UPLOAD_KEYS)
    return frozenset(found)


async def _resolves_versions(target: str) -> bool:
    async with aio.insecure_channel(target) as channel:
        try:
            request = pb.ResolveVersionsRequest(document_ids=["none"])
            # Past the front door, which would say who calls.
            caller = ((TENANT_HEADER, "default"), (PRINCIPAL_HEADER, "ordeal"), (REQUEST_ID_HEADER, "ordeal"))
            await DocumentServiceStub(channel).ResolveVersions(request, timeout=_SECONDS, metadata=caller)
        except aio.AioRpcError as error:
            return error.code() is StatusCode.NOT_FOUND
    return True


async def _heeds_keys(target: str, path: str, field: str) -> bool:
    """Whether another request under a used key is refused."""
    headers = {"idempotency-key": str(uuid.uuid4())}
    async with httpx.AsyncClient(base_url=f"http://{target}", timeout=_SECONDS) as client:
        for value in ("The first request.", "Another request under its key."):
            answer = await client.post(path, json={field: value}, headers=headers)
    return answer.status_code == httpx.codes.CONFLICT
