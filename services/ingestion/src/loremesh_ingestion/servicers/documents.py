"""DocumentService."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import Any

from google.api.httpbody_pb2 import HttpBody  # type: ignore[import-untyped]
from grpc import aio
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh.ingestion.v1.document_pb2_grpc import DocumentServiceServicer
from loremesh_kit import eventlog, filters, identity
from loremesh_kit.errors import InvalidField, PageTokenInvalid
from loremesh_kit.pages import Position, decode_token, encode_token

from loremesh_ingestion.domain.disposition import content_disposition
from loremesh_ingestion.engine.content import LINK_SECONDS, Content
from loremesh_ingestion.engine.deletion import Deletions
from loremesh_ingestion.engine.documents import Documents
from loremesh_ingestion.engine.liveness import Liveness
from loremesh_ingestion.engine.uploads import Uploads
from loremesh_ingestion.engine.watching import Watching
from loremesh_ingestion.records import DocumentQuery
from loremesh_ingestion.servicers import messages
from loremesh_ingestion.servicers.events import document_event
from loremesh_ingestion.servicers.uploading import read_upload

DEFAULT_PAGE = 50
_DEFAULT_EVENTS = 100
_UPDATABLE = ("title", "attributes")

Context = aio.ServicerContext[Any, Any]


class DocumentServicer(DocumentServiceServicer):
    """One method per rpc."""

    def __init__(
        self,
        *,
        uploads: Uploads,
        documents: Documents,
        content: Content,
        liveness: Liveness,
        deletions: Deletions,
        watching: Watching,
    ) -> None:
        self._uploads = uploads
        self._documents = documents
        self._content = content
        self._liveness = liveness
        self._deletions = deletions
        self._watching = watching

    async def UploadDocument(  # noqa: N802 - the rpc's name, as all others here
        self, request_iterator: AsyncIterator[pb.UploadDocumentRequest], context: Context
    ) -> pb.Document:
        """Take a document in pieces and accept it."""
        upload = await read_upload(request_iterator, context)
        document, outcome = await self._uploads.accept(upload)
        return messages.document(document, outcome=outcome)

    async def GetDocument(self, request: pb.GetDocumentRequest, context: Context) -> pb.Document:  # noqa: N802
        """Get one."""
        del context
        return messages.document(await self._documents.get(messages.line(request.document_id)))

    async def ListDocuments(  # noqa: N802
        self, request: pb.ListDocumentsRequest, context: Context
    ) -> pb.ListDocumentsResponse:
        """List a page, newest first."""
        del context
        after = decode_token(request.page_token, query=request)
        limit = request.page_size or DEFAULT_PAGE
        query = DocumentQuery(
            vector_store_id=messages.line(request.vector_store_id),
            state=messages.state_or_none(request.state),
            sha256=request.sha256,
            filter=filters.from_proto(request.filter),
        )
        found = await self._documents.page(query, after=messages.line(after.id) if after else "", limit=limit + 1)
        response = pb.ListDocumentsResponse(documents=[messages.document(each) for each in found[:limit]])
        if len(found) > limit:
            position = Position(sort_key="", id=found[limit - 1].id)
            response.next_page_token = encode_token(position, query=request)
        return response

    async def UpdateDocument(self, request: pb.UpdateDocumentRequest, context: Context) -> pb.Document:  # noqa: N802
        """Update title or attributes."""
        del context
        given = request.document
        taken = set(request.update_mask.paths) or {
            name for name, is_set in (("title", given.title), ("attributes", given.HasField("attributes"))) if is_set
        }
        if unknown := taken.difference(_UPDATABLE):
            raise InvalidField(f"{min(unknown)} cannot be updated.", field="update_mask")
        changed = await self._documents.update(
            messages.line(given.id),
            title=messages.line(given.title) if "title" in taken else None,
            attributes=(
                messages.attributes(given.attributes, field="document.attributes") if "attributes" in taken else None
            ),
            etag=given.etag,
        )
        return messages.document(changed)

    async def IndexDocument(  # noqa: N802
        self, request: pb.IndexDocumentRequest, context: Context
    ) -> pb.IndexDocumentResponse:
        """Index anew."""
        del context
        strategy = messages.strategy(request.chunking_strategy) if request.HasField("chunking_strategy") else None
        job_id, document = await self._documents.index(messages.line(request.document_id), strategy)
        return pb.IndexDocumentResponse(job_id=job_id, document=messages.document(document))

    async def RetryDocument(  # noqa: N802
        self, request: pb.RetryDocumentRequest, context: Context
    ) -> pb.IndexDocumentResponse:
        """Index once more what failed."""
        del context
        job_id, document = await self._documents.retry(messages.line(request.document_id))
        return pb.IndexDocumentResponse(job_id=job_id, document=messages.document(document))

    async def ResolveVersions(  # noqa: N802
        self, request: pb.ResolveVersionsRequest, context: Context
    ) -> pb.ResolveVersionsResponse:
        """Say what is live."""
        del context
        live = await self._liveness.resolve(
            messages.line(request.vector_store_id),
            generation=request.generation,
            document_ids=[messages.line(document_id) for document_id in request.document_ids],
        )
        return pb.ResolveVersionsResponse(
            generation=live.generation, embedding_model=live.embedding_model, versions=live.versions
        )

    async def DeleteDocument(  # noqa: N802
        self, request: pb.DeleteDocumentRequest, context: Context
    ) -> pb.DeleteDocumentResponse:
        """Hide it at once and have it removed."""
        del context
        return pb.DeleteDocumentResponse(receipt_id=await self._deletions.delete(messages.line(request.document_id)))

    async def DownloadDocument(  # noqa: N802
        self, request: pb.DownloadDocumentRequest, context: Context
    ) -> AsyncIterator[HttpBody]:
        """Stream the bytes. What was uploaded is never to run as a page of this host, whatever type it was given."""
        document, pieces = await self._content.download(messages.line(request.document_id))
        await context.send_initial_metadata(
            (
                ("content-disposition", content_disposition(document.filename or document.title)),
                ("x-content-type-options", "nosniff"),
            )
        )
        content_type = document.media_type
        async for piece in pieces:
            yield HttpBody(content_type=content_type, data=piece)
            content_type = ""

    async def CreateDownloadUrl(  # noqa: N802
        self, request: pb.CreateDownloadUrlRequest, context: Context
    ) -> pb.CreateDownloadUrlResponse:
        """Make a link for a quarter of an hour."""
        del context
        expires = datetime.now(UTC) + timedelta(seconds=LINK_SECONDS)
        url = await self._content.link(messages.line(request.document_id))
        return pb.CreateDownloadUrlResponse(url=url, expire_time=messages.timestamp(expires))

    async def GetDocumentText(  # noqa: N802
        self, request: pb.GetDocumentTextRequest, context: Context
    ) -> pb.GetDocumentTextResponse:
        """Read a span or pages of the extracted text."""
        del context
        document_id = messages.line(request.document_id)
        if request.first_page:
            span = await self._content.pages(document_id, first=request.first_page, last=request.last_page)
        else:
            span = await self._content.text(document_id, start=request.start_char, end=request.end_char)
        return pb.GetDocumentTextResponse(
            text=span.text, start_char=span.start, end_char=span.end, text_chars=span.text_chars
        )

    async def ListChunks(self, request: pb.ListChunksRequest, context: Context) -> pb.ListChunksResponse:  # noqa: N802
        """List a page of chunks; the token holds to what the first page showed."""
        del context
        limit = request.page_size or DEFAULT_PAGE
        generation, version, start = _chunk_position(decode_token(request.page_token, query=request))
        document, version, found = await self._content.chunks(
            messages.line(request.document_id), version=version, start=start, limit=limit + 1
        )
        if request.page_token and (not found or generation != document.generation):
            raise PageTokenInvalid("The document was indexed anew; begin with its first page.")
        tenant = identity.current().tenant
        response = pb.ListChunksResponse(
            chunks=[messages.chunk(each, tenant=tenant, of=document, version=version) for each in found[:limit]]
        )
        if len(found) > limit:
            position = Position(sort_key=f"{document.generation}.{version}", id=str(found[limit].index))
            response.next_page_token = encode_token(position, query=request)
        return response

    async def WatchDocument(  # noqa: N802
        self, request: pb.WatchDocumentRequest, context: Context
    ) -> AsyncIterator[pb.DocumentEvent]:
        """Stream its events."""
        document_id = messages.line(request.document_id)
        after_seq = eventlog.resume_after(request.after_seq, context.invocation_metadata())
        async with aclosing(self._watching.watch(document_id, after_seq=after_seq)) as events:
            async for event in events:
                yield document_event(event, document_id=document_id)

    async def ListDocumentEvents(  # noqa: N802
        self, request: pb.ListDocumentEventsRequest, context: Context
    ) -> pb.ListDocumentEventsResponse:
        """List them up to now."""
        document_id = messages.line(request.document_id)
        after_seq = eventlog.resume_after(request.after_seq, context.invocation_metadata())
        limit = request.page_size or _DEFAULT_EVENTS
        page = await self._watching.history(document_id, after_seq=after_seq, limit=limit)
        return pb.ListDocumentEventsResponse(
            events=[document_event(each, document_id=document_id) for each in page.events], last_seq=page.last_seq
        )


def _chunk_position(position: Position | None) -> tuple[int, int, int]:
    """Generation, version and index."""
    if position is None:
        return 0, 0, 0
    try:
        generation, version = position.sort_key.split(".")
        return int(generation), int(version), int(position.id)
    except ValueError as error:
        raise PageTokenInvalid from error
