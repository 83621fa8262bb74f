"""The blob store on S3, or on anything that speaks it.

boto takes 3 ms of processor time for a call, more than all else that is done for a small document, so the two calls
which every document makes, a small put and a get, are signed and sent here: the same in a quarter of the time.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any
from urllib.parse import quote

import aioboto3  # type: ignore[import-untyped]
import structlog
from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector
from botocore.auth import S3SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
from botocore.exceptions import ClientError as S3Refusal
from loremesh_kit.errors import DependencyUnavailable

from loremesh_ingestion.domain.disposition import content_disposition
from loremesh_ingestion.ports import StoredObject

PART_BYTES = 8 * 1024 * 1024
_READ_BYTES = 256 * 1024
_DELETE_AT_ONCE = 1000
_CONNECTIONS = 32
_TIMEOUT = ClientTimeout(total=None, connect=5, sock_read=30)
_CONFIG = AioConfig(
    signature_version="s3v4",
    s3={"addressing_style": "path"},
    connect_timeout=5,
    read_timeout=30,
    # Uploads are repeated by their caller, jobs by the worker: there is no third layer.
    retries={"total_max_attempts": 1, "mode": "standard"},
    request_checksum_calculation="when_required",
    response_checksum_validation="when_required",
)
_log = structlog.get_logger(__name__)


class S3BlobStore:
    """One bucket."""

    def __init__(self, *, client: Any, public_client: Any, credentials: Any, http: ClientSession, bucket: str) -> None:
        """`public_client` makes links, since a link holds the host's name."""
        self._client = client
        self._public_client = public_client
        self._credentials = credentials
        self._http = http
        self._bucket = bucket

    async def write(self, key: str, pieces: AsyncIterable[bytes]) -> None:
        """Store what fits into one part by one put, anything larger part by part."""
        parts = _parts(pieces)
        first = await anext(parts, b"")
        if len(first) < PART_BYTES:
            with _translated():
                async with self._request("PUT", key, data=first):
                    return
        with _translated():
            upload = await self._client.create_multipart_upload(Bucket=self._bucket, Key=key)
            where = {"Bucket": self._bucket, "Key": key, "UploadId": upload["UploadId"]}
            finished = False
            try:
                done = [await self._write_part(where, 1, first)]
                del first
                async for part in parts:
                    done.append(await self._write_part(where, len(done) + 1, part))
                await self._client.complete_multipart_upload(**where, MultipartUpload={"Parts": done})
                finished = True
            finally:
                if not finished:
                    await self._client.abort_multipart_upload(**where)

    async def _write_part(self, where: Mapping[str, str], number: int, part: bytes) -> dict[str, Any]:
        answer = await self._client.upload_part(**where, PartNumber=number, Body=part)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    async def read(self, key: str, *, first: int = 0, last: int | None = None) -> AsyncIterator[bytes]:
        """Get the object, or the range of it, as it comes from the wire."""
        whole = first == 0 and last is None
        headers = {} if whole else {"Range": f"bytes={first}-{'' if last is None else last}"}
        with _translated():
            async with self._request("GET", key, headers=headers) as response:
                async for piece in response.content.iter_chunked(_READ_BYTES):
                    yield piece

    async def delete(self, keys: Sequence[str]) -> None:
        """Remove up to 1,000 at a time."""
        with _translated():
            for start in range(0, len(keys), _DELETE_AT_ONCE):
                objects = [{"Key": key} for key in keys[start : start + _DELETE_AT_ONCE]]
                answer = await self._client.delete_objects(
                    Bucket=self._bucket, Delete={"Objects": objects, "Quiet": True}
                )
                if refused := answer.get("Errors"):
                    _log.warning("s3 did not delete", code=refused[0].get("Code"), count=len(refused))
                    raise DependencyUnavailable("s3")

    async def delete_all(self, prefix: str) -> int:
        """List and remove, page by page."""
        count = 0
        with _translated():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            async for page in pages:
                keys = [entry["Key"] for entry in page.get("Contents", ())]
                await self.delete(keys)
                count += len(keys)
        return count

    async def entries(self, prefix: str) -> AsyncIterator[Sequence[StoredObject]]:
        """Page by page."""
        with _translated():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            async for page in pages:
                yield [StoredObject(entry["Key"], entry["LastModified"]) for entry in page.get("Contents", ())]

    async def link(self, key: str, *, filename: str, media_type: str, seconds: int) -> str:
        """Presign a GET of this one key."""
        parameters = {
            "Bucket": self._bucket,
            "Key": key,
            "ResponseContentDisposition": content_disposition(filename),
            "ResponseContentType": media_type,
        }
        with _translated():
            url: str = await self._public_client.generate_presigned_url(
                "get_object", Params=parameters, ExpiresIn=seconds
            )
        return url

    async def probe(self) -> None:
        """Ask for the bucket; raises DependencyUnavailable."""
        with _translated():
            await self._client.list_objects_v2(Bucket=self._bucket, MaxKeys=1)

    @asynccontextmanager
    async def _request(
        self, method: str, key: str, *, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[ClientResponse]:
        credentials = await self._credentials.get_frozen_credentials()
        url = f"{self._client.meta.endpoint_url}/{self._bucket}/{quote(key)}"
        request = AWSRequest(method, url, data=data, headers=dict(headers or {}))
        S3SigV4Auth(credentials, "s3", self._client.meta.region_name).add_auth(request)
        async with self._http.request(method, url, data=data, headers=dict(request.headers)) as response:
            if not response.ok:
                _log.warning("s3 refused", method=method, status=response.status)
                raise DependencyUnavailable("s3")
            yield response


async def _parts(pieces: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """The same bytes in parts of PART_BYTES, but for the last."""
    held, size = [], 0
    async for piece in pieces:
        held.append(piece)
        size += len(piece)
        while size >= PART_BYTES:
            joined = b"".join(held)
            yield joined[:PART_BYTES]
            held, size = [joined[PART_BYTES:]], size - PART_BYTES
            del joined
    if size:
        yield b"".join(held)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (ClientError, TimeoutError, OSError, BotoCoreError, S3Refusal) as error:
        _log.warning("s3 failed", error=type(error).__name__)
        raise DependencyUnavailable("s3") from error


@asynccontextmanager
async def open_blob_store(
    *,
    endpoint_url: str,
    public_endpoint_url: str,
    access_key_id: str,
    secret_access_key: str,
    region: str,
    bucket: str,
) -> AsyncIterator[S3BlobStore]:
    """A blob store over one bucket. Empty URLs mean Amazon's, empty keys mean what the machine's role has."""
    session = aioboto3.Session(
        aws_access_key_id=access_key_id or None,
        aws_secret_access_key=secret_access_key or None,
        region_name=region,
    )
    async with AsyncExitStack() as stack:
        client, public_client = [
            await stack.enter_async_context(session.client("s3", endpoint_url=url or None, config=_CONFIG))
            for url in (endpoint_url, public_endpoint_url or endpoint_url)
        ]
        http = await stack.enter_async_context(
            ClientSession(connector=TCPConnector(limit=_CONNECTIONS), timeout=_TIMEOUT, auto_decompress=False)
        )
        credentials = await session.get_credentials()
        yield S3BlobStore(client=client, public_client=public_client, credentials=credentials, http=http, bucket=bucket)
