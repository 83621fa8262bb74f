"""What is quoted of a deleted document is shown to nobody, and then is gone."""

import asyncio
import json
from typing import Any

import pytest
from loremesh.agent.v1 import chat_job_pb2 as pb
from loremesh.agent.v1 import chat_pb2
from loremesh_agent.adapters.memory import Pause, ScriptedProvider
from loremesh_agent.adapters.postgres_quotations import PostgresQuotations
from loremesh_agent.ports import ModelText
from loremesh_kit.errors import DependencyUnavailable
from loremesh_kit.events import connect
from loremesh_kit.testing import caller

from .replicas import ANSWER, QUESTION, Mesh, Replica, until, words

pytestmark = pytest.mark.steelthread

LIGHTHOUSE = "document-lighthouse"
SOUP = "document-soup"


async def shown(replica: Replica, made: pb.CreateChatJobResponse) -> dict[str, list[chat_pb2.Source]]:
    """The sources that anybody is shown of a job, by where."""
    events = await replica.watch(made.job_id)
    listed = await replica.jobs.ListChatJobEvents(pb.ListChatJobEventsRequest(job_id=made.job_id))
    assert list(listed.events) == events
    (_, said) = await replica.messages(made.conversation_id)
    return {
        "message": list(said.sources),
        "job": list((await replica.job(made.job_id)).result.sources),
        "completed": list(events[-1].completed.sources),
        "sources": list(events[1].sources.sources),
    }


def is_blank(source: chat_pb2.Source) -> bool:
    return not (source.title or source.content or source.attributes.fields or source.heading_path)


async def test_a_deleted_document_is_quoted_nowhere_from_the_first_moment(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        made = await replica.create()
        before = await shown(replica, made)
        assert not any(is_blank(source) or source.deleted for sources in before.values() for source in sources)
        mesh.documents.deleted.add(LIGHTHOUSE)
        for place, sources in (await shown(replica, made)).items():
            assert [source.chunk_id for source in sources] == [source.chunk_id for source in before[place]]
            for source in sources:
                assert is_blank(source) == source.deleted == (source.document_id == LIGHTHOUSE)
        assert (await replica.job(made.job_id)).result.response == ANSWER


async def test_an_answer_from_a_deleted_document_is_not_told_to_the_model(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        made = await replica.create()
        await replica.watch(made.job_id)
        for deleted, messages in ((set[str](), 4), ({LIGHTHOUSE}, 2)):
            mesh.documents.deleted = deleted
            await ask(replica, "And who built the lighthouse of Genoa?", conversation_id=made.conversation_id)
            assert len(mesh.provider.requests[-1].messages) == messages
            assert (ANSWER.split("[")[0].strip() in str(mesh.provider.requests[-1].messages[1:-1])) == (messages == 4)


async def test_while_nobody_can_say_what_is_deleted_nothing_is_quoted(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        made = await replica.create()
        await shown(replica, made)
        mesh.documents.failure = DependencyUnavailable("ingestion")
        for sources in (await shown(replica, made)).values():
            assert [is_blank(source) for source in sources] == [True] * len(sources)
            assert not any(source.deleted for source in sources)
        assert (await replica.job(made.job_id)).result.response == ANSWER
        mesh.documents.failure = None
        assert not any(is_blank(source) for sources in (await shown(replica, made)).values() for source in sources)


async def test_what_was_deleted_is_removed_once_and_this_is_told(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        made = await replica.create()
        await replica.watch(made.job_id)
        chat = await ask(replica)
        with caller(tenant="other"):
            others = await replica.create()
            await replica.watch(others.job_id)
        async with connect(mesh.nats_url, service="ingestion") as bus:
            await until(lambda: connected(bus))
            await bus.ensure_service_stream()
            for message_id in ("deletion-1", "deletion-1", "deletion-2"):
                await tell(bus, message_id + made.job_id)
            await until(lambda: has_told(replica, 2))
        facts = await replica.database.fetch(
            "SELECT data FROM outbox WHERE subject = 'events.DocumentForgotten' ORDER BY id"
        )
        # Once each: the job's message, its events `sources` and `completed`, and the chat's message.
        assert [fact["data"] for fact in facts] == [
            {"document_id": LIGHTHOUSE, "vector_store_id": "default", "passages": passages} for passages in (4, 0)
        ]
        for sources in (await shown(replica, made)).values():
            for source in sources:
                assert is_blank(source) == source.deleted == (source.document_id == LIGHTHOUSE)
        assert [is_blank(source) for source in (await replica.messages(chat.conversation_id))[1].sources] == [True]
        for query in ("SELECT sources AS kept FROM messages", "SELECT payload AS kept FROM events"):
            assert "metres high. It was built" not in str(await replica.database.fetch(query))
        with caller(tenant="other"):
            assert not any(is_blank(each) for sources in (await shown(replica, others)).values() for each in sources)


async def connected(bus: Any) -> bool:
    return bool(bus.is_connected)


async def has_told(replica: Replica, times: int) -> bool:
    query = "SELECT id FROM outbox WHERE subject = 'events.DocumentForgotten'"
    return len(await replica.database.fetch(query)) == times


async def tell(bus: Any, message_id: str) -> None:
    await bus.publish(
        "loremesh.ingestion.events.DocumentDeleted",
        json.dumps({"document_id": LIGHTHOUSE, "vector_store_id": "default"}).encode(),
        message_id=message_id,
        headers={"x-loremesh-tenant": "acme", "x-loremesh-principal": "ada"},
    )


async def test_an_answer_that_ends_after_the_deletion_keeps_nothing_of_it(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ModelText("It is"), Pause(0.7), *words(" 77 metres high [1].")])
    async with mesh.replica() as replica:
        made = await replica.create()
        await until(lambda: replica.has_said_something(made.job_id))
        quotations = PostgresQuotations(database=replica.database)
        await quotations.forget(LIGHTHOUSE, vector_store_id="default", message_id="m")
        await replica.watch(made.job_id)
        for query in ("SELECT sources AS kept FROM messages", "SELECT payload AS kept FROM events"):
            assert "metres high. It was built" not in str(await replica.database.fetch(query))


async def ask(replica: Replica, message: str = QUESTION, **fields: str) -> chat_pb2.ChatResponse:
    return await replica.chat.Chat(chat_pb2.ChatRequest(message=message, **fields))


async def test_quoting_and_forgetting_at_once_leaves_nothing(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        quotations = PostgresQuotations(database=replica.database)
        for number in range(10):
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(ask(replica))
                group.create_task(quotations.forget(LIGHTHOUSE, vector_store_id="default", message_id=str(number)))
        kept = str(await replica.database.fetch("SELECT sources FROM messages"))
        assert LIGHTHOUSE in kept
        assert "metres high. It was built" not in kept
