"""The three bodies of an upload, and the typed one of native clients."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any, NoReturn

from google.protobuf import json_format
from grpc import aio
from loremesh.ingestion.v1 import document_pb2 as pb
from loremesh_kit import deadline
from loremesh_kit.errors import DeadlineExceeded, InvalidField
from loremesh_kit.interceptors.validation import check

from loremesh_ingestion.domain.attributes import cleaned
from loremesh_ingestion.domain.upload import UploadParameters, media_type
from loremesh_ingestion.engine.uploads import IncomingUpload
from loremesh_ingestion.errors import DocumentTooLarge, UploadMalformed
from loremesh_ingestion.servicers import messages
from loremesh_ingestion.servicers.form import Form

MAX_JSON_BYTES = 8 * 1024 * 1024
_IDLE_SECONDS = 30.0
# Set by Envoy's transcoder, on REST calls alone: a native client's content type only describes its file.
_TRANSCODED = "x-envoy-original-path"
_JSON_FIELDS = frozenset({"attributes", "chunking_strategy"})

Messages = AsyncIterator[pb.UploadDocumentRequest]
Context = aio.ServicerContext[Any, Any]


async def read_upload(requests: Messages, context: Context) -> IncomingUpload:
    """The upload that the first message begins; raises UploadMalformed, AttributesInvalid, ChunkingStrategyInvalid."""
    following = _attended(requests, context)
    first = await anext(following, None)
    if first is None:
        raise UploadMalformed("The upload ended before it began.", field="file")
    given = _typed(first)
    if any(key == _TRANSCODED for key, _ in context.invocation_metadata() or ()):
        match media_type(first.file.content_type):
            case "application/json":
                return JsonUpload(first.file.data, following, given)
            case "multipart/form-data":
                return FormUpload(first.file.data, following, given, Form(first.file.content_type))
    return RawUpload(first.file.data, following, given)


async def _attended(requests: Messages, context: Context) -> Messages:
    """The same messages, to their true end; raises DeadlineExceeded when the sender falls silent.

    To a reader a call that was cancelled looks like one that ended, and the file like a whole one. A write tells the
    two apart: the transport refuses it once the call is gone.
    """
    iterator = aiter(requests)
    while True:
        try:
            async with asyncio.timeout(deadline.within(_IDLE_SECONDS)):
                message = await anext(iterator, None)
        except TimeoutError as error:
            raise DeadlineExceeded("The upload fell silent before its end.") from error
        if message is None:
            await context.send_initial_metadata(())
            return
        yield message


class RawUpload:
    """The file itself."""

    def __init__(self, first: bytes, following: Messages, given: UploadParameters) -> None:
        self._first = first
        self._following = following
        self.parameters = given

    async def pieces(self) -> AsyncIterator[bytes]:
        """What the messages carry; raises UploadMalformed when a later one has parameters too."""
        if self._first:
            yield self._first
        async for message in self._following:
            if message.document_id or message.vector_store_id or message.title or message.filename:
                raise UploadMalformed("Only the first message may have parameters.", field="file")
            if message.file.data:
                yield message.file.data


class JsonUpload(RawUpload):
    """A JSON body: an UploadDocumentBody, whole."""

    async def pieces(self) -> AsyncIterator[bytes]:
        """The text; raises UploadMalformed, DocumentTooLarge, and what is wrong with the fields."""
        body = bytearray()
        async for piece in super().pieces():
            body += piece
            if len(body) > MAX_JSON_BYTES:
                raise DocumentTooLarge(
                    "A JSON body has at most 8 MiB; send a larger document as the file itself.",
                    limit_bytes=MAX_JSON_BYTES,
                )
        values = _parsed(bytes(body), field="file")
        if not isinstance(values, dict):
            raise UploadMalformed("The body must be a JSON object.", field="file")
        message = _body(values)
        self.parameters = replace(_overlaid(self.parameters, message), media_type="text/plain")
        if message.content:
            yield message.content.encode()


class FormUpload(RawUpload):
    """A multipart form: the part `file`, and parameters in parts of their names, in any order."""

    def __init__(self, first: bytes, following: Messages, given: UploadParameters, form: Form) -> None:
        super().__init__(first, following, given)
        self._form = form

    async def pieces(self) -> AsyncIterator[bytes]:
        """The file's bytes; raises UploadMalformed, and what is wrong with the fields."""
        async for piece in super().pieces():
            for part in self._form.feed(piece):
                yield part
        fields = self._form.finish()
        values = {name: _parsed(text, field=name) if name in _JSON_FIELDS else text for name, text in fields.items()}
        given = replace(
            self.parameters,
            filename=messages.line(self._form.filename)[:255] or self.parameters.filename,
            media_type=media_type(self._form.content_type),
        )
        self.parameters = _overlaid(given, _body(values))


def _typed(message: pb.UploadDocumentRequest) -> UploadParameters:
    return UploadParameters(
        document_id=messages.line(message.document_id),
        vector_store_id=messages.line(message.vector_store_id),
        title=messages.line(message.title),
        filename=messages.line(message.filename),
        media_type=media_type(message.file.content_type),
        attributes=messages.attributes(message.attributes),
        chunking_strategy=(
            messages.strategy(message.chunking_strategy) if message.HasField("chunking_strategy") else None
        ),
    )


def _overlaid(given: UploadParameters, body: pb.UploadDocumentBody) -> UploadParameters:
    """What the body says, and where it is silent what the query string says."""
    attributes = messages.attributes(body.attributes)
    strategy = messages.strategy(body.chunking_strategy) if body.HasField("chunking_strategy") else None
    return replace(
        given,
        document_id=messages.line(body.document_id) or given.document_id,
        vector_store_id=messages.line(body.vector_store_id) or given.vector_store_id,
        title=messages.line(body.title) or given.title,
        filename=messages.line(body.filename) or given.filename,
        attributes=attributes or given.attributes,
        chunking_strategy=strategy or given.chunking_strategy,
    )


def _body(values: Mapping[str, Any]) -> pb.UploadDocumentBody:
    """Field by field, so that the one which is wrong can be named; raises InvalidField and ValidationFailed."""
    body = pb.UploadDocumentBody()
    for name, value in values.items():
        try:
            json_format.ParseDict({name: cleaned(value)}, body)
        except (json_format.ParseError, RecursionError) as error:
            known = name in body.DESCRIPTOR.fields_by_name
            message = "The value is not of the field's type." if known else "There is no such field."
            raise InvalidField(message, field=name[:64]) from error
    check(body)
    return body


def _parsed(text: str | bytes, *, field: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise UploadMalformed("This is not valid JSON.", field=field) from error


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)
