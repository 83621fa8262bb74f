"""Runs as files."""

import json
from collections.abc import Mapping
from typing import Any

from google.api import httpbody_pb2  # type: ignore[import-untyped]
from google.protobuf import json_format
from google.protobuf.message import Message

from loremesh_crew import run_protos as protos
from loremesh_crew.crew_protos import crew
from loremesh_crew.domain.comparing import mermaid
from loremesh_crew.domain.machine import Pinned
from loremesh_crew.engine.runs import Runs

_PAGE = 500
# More than that is in the lists.
_MOST_EVENTS = 10_000


async def as_mermaid(runs: Runs, run_id: str) -> httpbody_pb2.HttpBody:
    """A graph, as text; raises RunNotFound."""
    run, view = await runs.get(run_id)
    return httpbody_pb2.HttpBody(content_type="text/plain; charset=utf-8", data=mermaid(run.pinned, view).encode())


async def as_json(runs: Runs, run_id: str) -> httpbody_pb2.HttpBody:
    """The run, its definition, its tree and its events; raises RunNotFound."""
    shown = await runs.tree(run_id)
    whole: Mapping[str, Any] = {
        "run": _plain(protos.run(*shown[0])),
        "definition": _definition(shown[0][0].pinned),
        "tree": _plain(protos.tree(shown)),
        "events": await _events(runs, run_id),
    }
    data = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()
    return httpbody_pb2.HttpBody(content_type="application/json", data=data)


async def _events(runs: Runs, run_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    after = 0
    while len(events) < _MOST_EVENTS:
        found, last_seq = await runs.events(run_id, after_seq=after, limit=_PAGE)
        events += [_plain(protos.event(run_id, event)) for event in found]
        if not found or found[-1].seq >= last_seq:
            break
        after = found[-1].seq
    return events


def _definition(pinned: Pinned) -> dict[str, Any]:
    if pinned.crew:
        return {"crew": _plain(crew(pinned.crew))}
    return {}


def _plain(proto: Message) -> dict[str, Any]:
    plain: dict[str, Any] = json_format.MessageToDict(proto)
    return plain
