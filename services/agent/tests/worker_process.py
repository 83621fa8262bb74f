"""A worker as a process of its own, for tests to kill and to freeze; what its model says is its argument."""

import asyncio
import json
import os
import sys

from loremesh_agent.adapters.memory import Pause, ScriptedProvider
from loremesh_agent.domain.passages import Found, Passage
from loremesh_agent.ports import ModelText
from loremesh_kit.testing import DatabaseUrls
from replicas import DONE, Mesh

TEXT = "The lighthouse of Genoa is 77 metres high."


async def main() -> None:
    script = [Pause(step) if isinstance(step, float) else ModelText(step) for step in json.loads(sys.argv[1])]
    passage = Passage(
        document_id="d", chunk_id="c", vector_store_id="default", title="", content=TEXT, score=1.0, attributes={},
        start_char=0, end_char=len(TEXT),
    )  # fmt: skip
    mesh = Mesh(
        urls=DatabaseUrls(plain=os.environ["DATABASE_URL"], owner=""),
        nats_url=os.environ["NATS_URL"],
        found=Found(passages=(passage,), similarity=0.9),
        provider=ScriptedProvider([*script, DONE]),
    )
    async with mesh.replica("worker"):
        await asyncio.Event().wait()


asyncio.run(main())
