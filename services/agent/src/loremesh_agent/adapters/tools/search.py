"""Passages of the agent's documents."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.json_format import ParseDict, ParseError
from loremesh.common.v1 import filter_pb2
from loremesh_kit.filters import Filter, from_proto

from loremesh_agent.domain.passages import Found, merged
from loremesh_agent.domain.quoted import delimited
from loremesh_agent.domain.tools import CallContext, Effect, ToolResult, ToolSpec
from loremesh_agent.errors import ToolFailed
from loremesh_agent.ports import PassageIndex

NAME = "search"
_TOP_K = 5
_MAX_TOP_K = 20

_SPEC = ToolSpec(
    name=NAME,
    description=(
        "Searches the documents for passages about something and returns the best of them, with title, document id, "
        "page and position. Ask in a whole phrase or question, as specific as you can; search again in other words "
        "when the passages do not answer the question. To read more around a passage use document_reader, if you "
        "have it."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "description": "What the passages should be about",
                "minLength": 1,
                "maxLength": 2000,
            },
            "top_k": {
                "type": "integer",
                "description": f"How many passages; {_TOP_K} if left out",
                "minimum": 1,
                "maximum": _MAX_TOP_K,
            },
            "vector_store_id": {
                "type": "string",
                "description": "Search only this one of your vector stores; all of them if left out",
                "minLength": 1,
                "maxLength": 64,
            },
            "filter": {
                "type": "object",
                "description": (
                    "Only documents whose attributes fulfil this. Exactly one of eq, ne, gt, gte, lt, lte "
                    '({"eq": {"key": "lang", "value": "th"}}), in, nin ({"in": {"key": "year", "values": [2024, '
                    '2025]}}), exists ({"exists": {"key": "draft"}}), and, or ({"and": {"filters": [...]}}), not '
                    "(a filter)."
                ),
            },
        },
        "required": ["query"],
        "additionalProperties": False,
    },
    effect=Effect.READ_ONLY,
    timeout_seconds=20.0,
)


class Search:
    """See ports.Tool."""

    def __init__(self, *, index: PassageIndex) -> None:
        self._index = index

    @property
    def spec(self) -> ToolSpec:
        """See ports.Tool."""
        return _SPEC

    async def call(self, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """See ports.Tool; also raises FilterInvalid, VectorStoreNotFound, DeadlineExceeded, Overloaded."""
        stores = _stores(arguments.get("vector_store_id"), context.vector_store_ids)
        top_k = arguments.get("top_k", _TOP_K)
        found = await self._found(arguments["query"], stores, top_k=top_k, filter_=_filter(arguments.get("filter")))
        if not found.passages:
            return ToolResult(content="No passages were found.", generations=found.generations)
        content, passages = delimited(found.passages)
        return ToolResult(content=content, passages=passages, generations=found.generations)

    async def _found(self, query: str, stores: Sequence[str], *, top_k: int, filter_: Filter | None) -> Found:
        try:
            async with asyncio.TaskGroup() as group:
                searches = [
                    group.create_task(self._index.search(query, vector_store_id=each, top_k=top_k, filter_=filter_))
                    for each in stores
                ]
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        return merged([search.result() for search in searches], top_k=top_k)


def _stores(wanted: str | None, allowed: Sequence[str]) -> Sequence[str]:
    if wanted is None:
        return allowed
    if wanted not in allowed:
        raise ToolFailed(f"{wanted!r} is not one of your vector stores: {', '.join(allowed)}.", tool=NAME)
    return [wanted]


def _filter(given: Mapping[str, Any] | None) -> Filter | None:
    if given is None:
        return None
    try:
        return from_proto(ParseDict(dict(given), filter_pb2.Filter()))
    except ParseError:
        raise ToolFailed("The filter is not written as described.", tool=NAME) from None
