"""A driver's words, with a secret in them, stay in the process; without the interceptor they come out."""

import asyncio

import pytest
from google.protobuf.json_format import MessageToJson
from grpc import aio
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1.document_pb2_grpc import DocumentServiceStub
from loremesh_kit.testing import caller

from tests.ordeal.acts import SMALL
from tests.ordeal.checker import leaks
from tests.ordeal.lot import TENANT
from tests.ordeal.steel import Twin

pytestmark = [pytest.mark.steelthread, pytest.mark.timeout(120)]

CANARY = "canary-password"


class Talkative:
    """A port that fails with a secret in its words."""

    def __init__(self, port, *methods):
        self._port = port
        self._methods = methods

    def __getattr__(self, name):
        if name not in self._methods:
            return getattr(self._port, name)

        async def fail(*args, **kwargs):
            raise RuntimeError(f"cannot connect to postgresql://loremesh:{CANARY}@db/loremesh")

        return fail


def failing(port, *methods):
    return Twin(ports=lambda name, found: Talkative(found, *methods) if name == port else found)


class Open:
    """No interceptor."""

    def __init__(self, **_):
        pass

    async def __call__(self, call, proceed):
        return await proceed()


async def _told_of_a_link(lot):
    document_id = await lot.upload(SMALL)
    await lot.quiet()
    with caller(tenant=TENANT), pytest.raises(aio.AioRpcError) as raised:
        await DocumentServiceStub(lot.process.channel).CreateDownloadUrl(
            pb.CreateDownloadUrlRequest(document_id=document_id), timeout=20
        )
    return f"{raised.value.details()} {raised.value.trailing_metadata()}"


async def test_a_failed_call_does_not_say_what_the_driver_said(make_lot):
    async with make_lot(failing("blobs", "link")) as lot:
        assert not list(leaks([CANARY], {"reply": await _told_of_a_link(lot)}))


async def test_without_the_error_interceptor_it_does(make_lot, monkeypatch):
    monkeypatch.setattr("loremesh_kit.serving.ErrorInterceptor", Open)
    async with make_lot(failing("blobs", "link")) as lot:
        assert list(leaks([CANARY], {"reply": await _told_of_a_link(lot)}))


async def test_a_failed_job_tells_nobody_what_the_driver_said(make_lot):
    async with make_lot(failing("embedder", "embed")) as lot:
        document_id = await lot.upload(SMALL)
        async with asyncio.timeout(60):
            while not await lot.quiet(0.2):
                await lot.rows("UPDATE jobs SET due_at = now() WHERE state = 'QUEUED'")
        with caller(tenant=TENANT):
            stub = DocumentServiceStub(lot.process.channel)
            document = await stub.GetDocument(pb.GetDocumentRequest(document_id=document_id), timeout=20)
            watching = stub.WatchDocument(pb.WatchDocumentRequest(document_id=document_id), timeout=20)
            events = [MessageToJson(event) async for event in watching]
        assert document.failure.reason == "INTERNAL"
        rows = await lot.rows("SELECT * FROM dead_letters") + await lot.rows("SELECT * FROM outbox")
        told = {"document": MessageToJson(document), "events": "".join(events), "rows": str(rows)}
        assert not list(leaks([CANARY], told))
