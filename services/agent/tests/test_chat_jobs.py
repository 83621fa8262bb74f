"""Chat in the background on a real Postgres and NATS: the model is scripted, and workers die."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from grpc import StatusCode, aio
from loremesh.agent.v1 import chat_job_pb2 as pb
from loremesh.agent.v1 import chat_pb2, conversation_pb2
from loremesh_agent.adapters.memory import Pause, ScriptedProvider
from loremesh_agent.adapters.postgres_chat_work import PostgresChatWork
from loremesh_agent.domain.conversations import State
from loremesh_agent.domain.events import Cancelled, FinishReason, TextDelta
from loremesh_agent.errors import ProviderRefused, ProviderStreamCut, ProviderUnavailable
from loremesh_agent.ports import FinishedTurn, ModelFinish, ModelText
from loremesh_kit.channel import reason_of
from loremesh_kit.jobs import FenceLost, Job
from loremesh_kit.loops import background
from loremesh_kit.testing import caller

from .replicas import ANSWER, DONE, NAMES, QUESTION, SECONDS, Mesh, Replica, check, kinds, text_of, until, words

pytestmark = pytest.mark.steelthread


async def test_a_job_is_answered_kept_and_told_as_it_happens(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ModelText("It is"), Pause(0.5), *words(" 77 metres high [1].")])
    async with mesh.replica() as replica:
        made = await replica.create()
        events = await replica.watch(made.job_id)
        check(events)
        assert kinds(events)[:3] == ["run_started", "sources", "text_start"]
        assert kinds(events)[-2:] == ["text_finish", "completed"]
        assert 2 <= kinds(events).count("text_delta") < 6
        job = await replica.job(made.job_id)
        assert (job.status, job.attempt, job.conversation_id) == (
            pb.CHAT_JOB_STATUS_COMPLETED, 1, made.conversation_id,
        )  # fmt: skip
        assert job.result == events[-1].completed
        assert (job.result.response, job.result.run_id) == (ANSWER, made.job_id)
        assert text_of(events, 1) == ANSWER
        assert (job.record.agent_id, job.record.model, dict(job.record.index_generations)) == (
            "default", job.result.model, {"default": 1},
        )  # fmt: skip
        assert job.expire_time.ToDatetime() - job.finish_time.ToDatetime() == timedelta(days=7)
        asked, said = await replica.messages(made.conversation_id)
        assert (asked.content, said.content, said.run_id) == (QUESTION, ANSWER, made.job_id)
        assert said.state == conversation_pb2.MESSAGE_STATE_COMPLETED
        listed = await replica.jobs.ListChatJobEvents(pb.ListChatJobEventsRequest(job_id=made.job_id, after_seq=2))
        assert (list(listed.events), listed.last_seq) == (events[2:], len(events))


async def test_a_watch_goes_on_where_it_was_cut_on_any_replica(mesh: Mesh) -> None:
    async with mesh.replica("server") as one, mesh.replica("all") as other:
        made = await one.create()
        async with background() as group:
            watching = [group.create_task(replica.watch(made.job_id)) for replica in (one, other)]
        first, second = (each.result() for each in watching)
        check(first)
        assert first == second
        assert await other.watch(made.job_id, after_seq=3) == first[3:]
        assert await one.watch(made.job_id, metadata=[("last-event-id", "3")]) == first[3:]
        assert await one.watch(made.job_id, after_seq=len(first)) == []
        with pytest.raises(aio.AioRpcError) as refused:
            await one.watch(made.job_id, after_seq=len(first) + 1)
        assert reason_of(refused.value) == "AFTER_SEQ_OUT_OF_RANGE"
        assert refused.value.code() is StatusCode.OUT_OF_RANGE
        for metadata in ("x", "-1", "9" * 30):
            assert await one.watch(made.job_id, metadata=[("last-event-id", metadata)]) == first


async def test_another_worker_finishes_what_a_dead_one_began_and_its_text_is_void(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ModelText("It was"), Pause(60), DONE], words())
    async with mesh.replica("server") as one, mesh.replica("server") as other:
        made = await one.create()
        async with asyncio.timeout(SECONDS), background() as group:
            watching = group.create_task(other.watch(made.job_id))
            async with one.worker():
                await until(lambda: one.has_said_something(made.job_id))
            async with other.worker():
                events = await watching
        check(events)
        assert (text_of(events, 1), text_of(events, 2)) == ("It was", ANSWER)
        assert [event.attempt for event in events if event.WhichOneof("payload") == "run_started"] == [1, 2]
        assert (await one.job(made.job_id)).attempt == 2
        (_, said) = await one.messages(made.conversation_id)
        assert said.content == ANSWER


async def claimed(replica: Replica) -> Job:
    """The one job there is, as its next worker holds it."""
    (row,) = await replica.database.fetch(
        """
        UPDATE jobs SET state = 'RUNNING', lease_until = now() + interval '1 h', attempt = attempt + 1,
            fence = fence + 1
        RETURNING id, tenant, principal, request_id, kind, payload, attempt, fence, max_attempts, subject_id
        """
    )
    return Job(**row)


async def test_a_worker_whose_job_went_to_another_writes_nothing(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        made, work = await replica.create(), PostgresChatWork(database=replica.database)
        late = await claimed(replica)
        asked = await work.begin(late)
        told = {"answer_id": asked.turn.answer_id, "attempt": asked.attempt}
        await work.tell(late, [TextDelta("It was")], **told)
        inheriting = await claimed(replica)
        finished = FinishedTurn(content="It was wrong.", state=State.COMPLETED)
        for write in (
            work.begin(late),
            work.tell(late, [TextDelta(" wrong.")], **told),
            work.finish(late, [TextDelta(" wrong.")], finished, **told),
        ):
            with pytest.raises(FenceLost):
                await write
        assert (await replica.job(made.job_id)).status == pb.CHAT_JOB_STATUS_RUNNING
        asked = await work.begin(inheriting)
        told["attempt"] = asked.attempt
        await work.finish(inheriting, [TextDelta("It is."), Cancelled()], replace(finished, content="It is."), **told)
        events = await replica.watch(made.job_id)
        assert [(event.attempt, event.text_delta.text) for event in events] == [(1, "It was"), (2, "It is."), (2, "")]
        assert (await replica.job(made.job_id)).result.response == "It is."


async def test_a_cancelled_job_cannot_be_finished(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        made, work = await replica.create(), PostgresChatWork(database=replica.database)
        job = await claimed(replica)
        asked = await work.begin(job)
        await replica.jobs.CancelChatJob(pb.CancelChatJobRequest(job_id=made.job_id))
        finished = FinishedTurn(content="It is.", state=State.COMPLETED)
        with pytest.raises(FenceLost):
            await work.finish(job, [], finished, answer_id=asked.turn.answer_id, attempt=asked.attempt)
        assert (await replica.job(made.job_id)).status == pb.CHAT_JOB_STATUS_CANCELLED
        assert kinds(await replica.watch(made.job_id)) == ["cancelled"]


@pytest.mark.parametrize("tokens", range(7))
async def test_a_provider_cut_at_any_token_is_another_attempt_and_never_the_answer(mesh: Mesh, tokens: int) -> None:
    mesh.provider = ScriptedProvider([*words()[:tokens], ProviderStreamCut("cut", **NAMES)], words())
    async with mesh.replica() as replica:
        made = await replica.create()
        events = await replica.watch(made.job_id)
        check(events)
        assert events[-1].attempt == 2
        assert events[-1].completed.response == text_of(events, 2) == ANSWER
        assert text_of(events, 1) == "".join(piece.text for piece in words()[:tokens] if isinstance(piece, ModelText))


async def test_a_provider_that_is_always_cut_fails_the_job_after_few_attempts(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ModelText("It is"), ProviderStreamCut("cut", **NAMES)])
    async with mesh.replica() as replica:
        made = await replica.create()
        events = await replica.watch(made.job_id)
        check(events)
        job = await replica.job(made.job_id)
        assert (job.status, job.attempt) == (pb.CHAT_JOB_STATUS_FAILED, 4)
        assert job.error == events[-1].failed
        assert (job.error.reason, job.error.retryable, dict(job.error.metadata)) == ("PROVIDER_STREAM_CUT", True, NAMES)
        (_, said) = await replica.messages(made.conversation_id)
        assert (said.state, said.content) == (conversation_pb2.MESSAGE_STATE_FAILED, "It is")


async def test_an_answer_cut_by_a_limit_is_incomplete(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider(
        [ModelText("It is 77 metres [1]"), ModelFinish(reason=FinishReason.CONTENT_FILTER)]
    )
    async with mesh.replica() as replica:
        made = await replica.create()
        events = await replica.watch(made.job_id)
        check(events)
        job = await replica.job(made.job_id)
        assert job.status == pb.CHAT_JOB_STATUS_INCOMPLETE
        assert job.result == events[-1].incomplete.partial
        assert job.result.finish_reason == chat_pb2.FINISH_REASON_CONTENT_FILTER


async def test_a_refusal_is_final(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ProviderRefused("no", **NAMES)])
    async with mesh.replica() as replica:
        made = await replica.create()
        events = await replica.watch(made.job_id)
        assert (kinds(events)[-1], events[-1].failed.reason) == ("failed", "PROVIDER_REFUSED")
        assert len(mesh.provider.requests) == 1


async def test_a_busy_provider_is_asked_again_when_it_said(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ProviderUnavailable("busy", retry_after=1.0, **NAMES)], words())
    async with mesh.replica() as replica:
        started = asyncio.get_running_loop().time()
        events = await replica.watch((await replica.create()).job_id)
        assert kinds(events)[-1] == "completed"
        assert asyncio.get_running_loop().time() - started >= 1.0


async def test_what_takes_too_long_fails(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ModelText("It is"), Pause(60)])
    async with mesh.replica(chat_job_seconds=1.0) as replica:
        made = await replica.create()
        events = await replica.watch(made.job_id)
        check(events)
        assert events[-1].failed.reason == "DEADLINE_EXCEEDED"


async def test_cancelling_ends_the_job_and_the_models_work(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ModelText("It is"), Pause(60), DONE])
    async with mesh.replica() as replica:
        made = await replica.create()
        await asyncio.wait_for(mesh.provider.asked.wait(), SECONDS)
        await until(lambda: replica.has_said_something(made.job_id))
        job = await replica.jobs.CancelChatJob(pb.CancelChatJobRequest(job_id=made.job_id))
        assert job.status == pb.CHAT_JOB_STATUS_CANCELLED
        events = await replica.watch(made.job_id)
        check(events)
        assert kinds(events)[-1] == "cancelled"
        (_, said) = await replica.messages(made.conversation_id)
        assert (said.state, said.content) == (conversation_pb2.MESSAGE_STATE_CANCELLED, "It is")
        await until(mesh.closed)
        again = await replica.jobs.CancelChatJob(pb.CancelChatJobRequest(job_id=made.job_id))
        assert again == await replica.job(made.job_id)
        assert await replica.watch(made.job_id) == events


async def test_cancelling_what_is_finished_changes_nothing(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        made = await replica.create()
        events = await replica.watch(made.job_id)
        job = await replica.jobs.CancelChatJob(pb.CancelChatJobRequest(job_id=made.job_id))
        assert job.status == pb.CHAT_JOB_STATUS_COMPLETED
        assert await replica.watch(made.job_id) == events


async def test_a_key_makes_a_repeated_request_the_same_job(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        async with background() as group:
            creating = [group.create_task(replica.create(key="k")) for _ in range(5)]
        made = [each.result() for each in creating]
        assert len({each.job_id for each in made}) == 1
        assert (await replica.create(key="other")).job_id != made[0].job_id
        for message, key, reason in (
            ("And who built it?", "k", "IDEMPOTENCY_CONFLICT"),
            (QUESTION, "", "IDEMPOTENCY_KEY_INVALID"),
            (QUESTION, "k" * 201, "IDEMPOTENCY_KEY_INVALID"),
        ):
            with pytest.raises(aio.AioRpcError) as refused:
                await replica.create(message, key=key)
            assert reason_of(refused.value) == reason
        assert len((await replica.jobs.ListChatJobs(pb.ListChatJobsRequest())).jobs) == 2


async def test_a_chat_with_a_key_is_answered_once(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([Pause(0.5), *words()], words("Another answer."))
    async with mesh.replica("server") as replica:

        async def ask(message: str = QUESTION) -> chat_pb2.ChatResponse:
            request = chat_pb2.ChatRequest(message=message)
            return await replica.chat.Chat(request, metadata=[("idempotency-key", "k")], timeout=SECONDS)

        first = asyncio.ensure_future(ask())
        await mesh.provider.asked.wait()
        with pytest.raises(aio.AioRpcError) as refused:
            await ask()
        assert (reason_of(refused.value), refused.value.code()) == ("CONVERSATION_BUSY", StatusCode.ABORTED)
        assert (await first).response == ANSWER
        assert await ask() == await first
        assert len(mesh.provider.requests) == 1
        request = chat_pb2.ChatRequest(message=QUESTION)
        (event,) = [each async for each in replica.chat.StreamChat(request, metadata=[("idempotency-key", "k")])]
        assert event.completed == await first
        assert len(mesh.provider.requests) == 1
        with pytest.raises(aio.AioRpcError) as refused:
            await ask("And who built it?")
        assert reason_of(refused.value) == "IDEMPOTENCY_CONFLICT"
        found = await replica.conversations.ListConversations(conversation_pb2.ListConversationsRequest())
        assert [each.message_count for each in found.conversations] == [2]


async def test_a_chat_that_failed_is_tried_again_under_its_key(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider([ModelText("It"), ProviderStreamCut("cut", **NAMES)], words())
    async with mesh.replica("server") as replica:
        request, metadata = chat_pb2.ChatRequest(message=QUESTION), [("idempotency-key", "k")]
        with pytest.raises(aio.AioRpcError):
            await replica.chat.Chat(request, metadata=metadata, timeout=SECONDS)
        assert (await replica.chat.Chat(request, metadata=metadata, timeout=SECONDS)).response == ANSWER


async def test_so_many_may_wait_and_no_more(mesh: Mesh) -> None:
    async with mesh.replica("server", chat_jobs_waiting=2) as replica:
        for _ in range(2):
            await replica.create()
        with pytest.raises(aio.AioRpcError) as refused:
            await replica.create()
        assert (reason_of(refused.value), refused.value.code()) == ("QUEUE_FULL", StatusCode.RESOURCE_EXHAUSTED)
        with caller(tenant="other"):
            await replica.create()


async def test_what_is_refused_leaves_nothing_behind(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        busy = await replica.create()
        for fields, reason in (
            ({"message": " "}, "MESSAGE_EMPTY"),
            ({"message": "word " * 6000}, "MESSAGE_TOO_LONG"),
            ({"agent_id": "nobody"}, "AGENT_NOT_FOUND"),
            ({"conversation_id": "x"}, "CONVERSATION_NOT_FOUND"),
            ({"conversation_id": busy.conversation_id}, "CONVERSATION_BUSY"),
        ):
            with pytest.raises(aio.AioRpcError) as refused:
                await replica.create(**fields)
            assert reason_of(refused.value) == reason
        assert len(await replica.database.fetch("SELECT id FROM jobs", tenant="acme")) == 1
        assert len(await replica.database.fetch("SELECT id FROM messages", tenant="acme")) == 2


async def test_jobs_are_listed_newest_first_by_their_owner_alone(mesh: Mesh) -> None:
    async with mesh.replica("server") as replica:
        made = [(await replica.create()).job_id for _ in range(5)]
        found, token = [], ""
        while True:
            page = await replica.jobs.ListChatJobs(pb.ListChatJobsRequest(page_size=2, page_token=token))
            found += [job.job_id for job in page.jobs]
            token = page.next_page_token
            if not token:
                break
        assert found == made[::-1]
        for status, count in ((pb.CHAT_JOB_STATUS_QUEUED, 5), (pb.CHAT_JOB_STATUS_COMPLETED, 0)):
            assert len((await replica.jobs.ListChatJobs(pb.ListChatJobsRequest(status=status))).jobs) == count
        with caller(tenant="other"):
            assert not (await replica.jobs.ListChatJobs(pb.ListChatJobsRequest())).jobs
            for probe in (
                replica.jobs.GetChatJob(pb.GetChatJobRequest(job_id=made[0])),
                replica.jobs.CancelChatJob(pb.CancelChatJobRequest(job_id=made[0])),
                replica.jobs.ListChatJobEvents(pb.ListChatJobEventsRequest(job_id=made[0])),
                replica.watch(made[0]),
            ):
                with pytest.raises(aio.AioRpcError) as refused:
                    await probe
                assert reason_of(refused.value) == "CHAT_JOB_NOT_FOUND"


async def test_a_job_goes_on_with_its_conversation_and_dies_with_it(mesh: Mesh) -> None:
    mesh.provider = ScriptedProvider(words(), [ModelText("It is"), Pause(60)])
    async with mesh.replica() as replica:
        first = await replica.create()
        await replica.watch(first.job_id)
        second = await replica.create("And who built it?", conversation_id=first.conversation_id)
        await until(lambda: mesh.asked(2))
        assert [message.content for message in mesh.provider.requests[1].messages[1:3]] == [
            QUESTION, ANSWER.removesuffix(" [1].") + ".",
        ]  # fmt: skip
        request = conversation_pb2.DeleteConversationRequest(conversation_id=first.conversation_id)
        await replica.conversations.DeleteConversation(request)
        for job_id in (first.job_id, second.job_id):
            with pytest.raises(aio.AioRpcError) as refused:
                await replica.job(job_id)
            assert reason_of(refused.value) == "CHAT_JOB_NOT_FOUND"
        await until(lambda: mesh.closed(2))
        for kept in ("SELECT seq FROM events", "SELECT run_id FROM event_heads", "SELECT id FROM chat_jobs"):
            assert await replica.database.fetch(kept) == []


async def test_who_watches_a_job_that_is_deleted_is_told(mesh: Mesh) -> None:
    async with mesh.replica("server", heartbeat_seconds=0.2) as replica:
        made = await replica.create()
        watching = asyncio.ensure_future(replica.watch(made.job_id))
        await asyncio.sleep(0.5)
        request = conversation_pb2.DeleteConversationRequest(conversation_id=made.conversation_id)
        await replica.conversations.DeleteConversation(request)
        with pytest.raises(aio.AioRpcError) as refused:
            await watching
        assert reason_of(refused.value) == "CHAT_JOB_NOT_FOUND"


async def test_a_job_is_kept_for_seven_days_and_its_conversation_stays(mesh: Mesh) -> None:
    async with mesh.replica() as replica:
        made = await replica.create()
        await replica.watch(made.job_id)
        await replica.database.fetch("UPDATE chat_jobs SET finish_time = finish_time - interval '169 h'")
        with pytest.raises(aio.AioRpcError) as refused:
            await replica.job(made.job_id)
        assert reason_of(refused.value) == "CHAT_JOB_NOT_FOUND"
        stop = asyncio.Event()
        async with asyncio.timeout(SECONDS), background() as group:
            group.create_task(replica.wired.workers[1].run(stop))
            while await replica.database.fetch("SELECT id FROM chat_jobs"):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            stop.set()
        for kept in ("SELECT seq FROM events", "SELECT run_id FROM event_heads"):
            assert await replica.database.fetch(kept) == []
        assert [each.content for each in await replica.messages(made.conversation_id)] == [QUESTION, ANSWER]
