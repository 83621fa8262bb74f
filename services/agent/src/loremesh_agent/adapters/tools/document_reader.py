"""Parts of a document, as it reads."""

from collections.abc import Mapping, Sequence
from typing import Any

from loremesh_agent.domain.passages import Passage
from loremesh_agent.domain.quoted import delimited
from loremesh_agent.domain.tools import CallContext, Effect, ToolResult, ToolSpec
from loremesh_agent.errors import ToolFailed
from loremesh_agent.ports import DocumentFacts, DocumentTexts, Extract

NAME = "document_reader"
_MAX_SPAN = 12_000
_MAX_PAGES = 50

_SPEC = ToolSpec(
    name=NAME,
    description=(
        "Reads a part of one document: characters from start_char on, or pages. Use it to read on around a passage "
        "that search found; it says how long the document is. At most about 12,000 characters are returned at a time: "
        "go on with start_char where the text ended."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "document_id": {
                "type": "string",
                "description": "Id of the document, as search gives it",
                "minLength": 1,
                "maxLength": 64,
            },
            "start_char": {
                "type": "integer",
                "description": "First character to read, counted from 0; the beginning if left out",
                "minimum": 0,
                "maximum": 2**40,
            },
            "end_char": {
                "type": "integer",
                "description": "Where to stop, exclusive; as far as there is room if left out",
                "minimum": 1,
                "maximum": 2**40,
            },
            "first_page": {
                "type": "integer",
                "description": "Instead of characters: first page to read, counted from 1",
                "minimum": 1,
                "maximum": 100_000,
            },
            "last_page": {
                "type": "integer",
                "description": "Last page to read; first_page alone if left out",
                "minimum": 1,
                "maximum": 100_000,
            },
        },
        "required": ["document_id"],
        "additionalProperties": False,
    },
    effect=Effect.READ_ONLY,
    timeout_seconds=20.0,
)


class DocumentReader:
    """See ports.Tool."""

    def __init__(self, *, texts: DocumentTexts) -> None:
        self._texts = texts

    @property
    def spec(self) -> ToolSpec:
        """See ports.Tool."""
        return _SPEC

    async def call(self, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """See ports.Tool; also raises DeadlineExceeded."""
        facts = await self._facts(arguments["document_id"], context.vector_store_ids)
        extract = await (self._pages if _asks_for_pages(arguments) else self._span)(facts, arguments)
        if extract is None:
            raise ToolFailed("The document has no such text, or none at all yet.", tool=NAME)
        passage = Passage(
            document_id=facts.document_id,
            chunk_id="",
            vector_store_id=facts.vector_store_id,
            title=facts.title,
            content=extract.text[:_MAX_SPAN],
            score=1.0,
            attributes={},
            start_char=extract.start_char,
            end_char=extract.start_char + min(len(extract.text), _MAX_SPAN),
            page=arguments.get("first_page"),
        )
        content, passages = delimited([passage])
        return ToolResult(content=f"{content}\n{_rest(facts, passages[0].end_char)}", passages=passages)

    async def _facts(self, document_id: str, allowed: Sequence[str]) -> DocumentFacts:
        facts = await self._texts.facts(document_id)
        # Others' documents are as good as none.
        if facts is None or facts.vector_store_id not in allowed:
            raise ToolFailed(f"There is no document {document_id!r}.", tool=NAME)
        return facts

    async def _span(self, facts: DocumentFacts, arguments: Mapping[str, Any]) -> Extract | None:
        start = arguments.get("start_char", 0)
        end = min(arguments.get("end_char", start + _MAX_SPAN), start + _MAX_SPAN, facts.text_chars)
        if start >= end:
            raise ToolFailed(
                f"There is nothing to read from {start} on: the document has {facts.text_chars} characters, and "
                "end_char must be greater than start_char.",
                tool=NAME,
            )
        return await self._texts.span(facts.document_id, start_char=start, end_char=end)

    async def _pages(self, facts: DocumentFacts, arguments: Mapping[str, Any]) -> Extract | None:
        if {"start_char", "end_char"} & arguments.keys() or "first_page" not in arguments:
            raise ToolFailed("Give either start_char and end_char, or first_page and last_page.", tool=NAME)
        first = arguments["first_page"]
        last = min(arguments.get("last_page", first), first + _MAX_PAGES - 1)
        if first > facts.pages or last < first:
            raise ToolFailed(_pages_there_are(facts), tool=NAME)
        return await self._texts.pages(facts.document_id, first=first, last=last)


def _asks_for_pages(arguments: Mapping[str, Any]) -> bool:
    return bool({"first_page", "last_page"} & arguments.keys())


def _pages_there_are(facts: DocumentFacts) -> str:
    if not facts.pages:
        return "The document has no pages: read it by start_char."
    return f"The document has the pages 1 to {facts.pages}, and last_page must not be before first_page."


def _rest(facts: DocumentFacts, end: int) -> str:
    pages = f", {facts.pages} pages" if facts.pages else ""
    return f"(The document has {facts.text_chars} characters{pages}; this ends at {end}.)"
