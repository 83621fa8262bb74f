"""Agents with tools on a real Postgres and NATS: the model is scripted, and so are its tools."""

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from grpc import aio
from grpc_status import rpc_status
from loremesh.agent.v1 import approval_pb2, chat_pb2
from loremesh.agent.v1 import chat_job_pb2 as pb
from loremesh_agent.adapters.memory import Pause, ScriptedProvider
from loremesh_agent.adapters.postgres_quotations import PostgresQuotations
from loremesh_agent.adapters.toolbox import FixedToolbox
from loremesh_agent.adapters.tools.ask_human import AskHuman
from loremesh_agent.domain.conversations import Usage
from loremesh_agent.domain.definitions import BusyPolicy, LimitPolicy, Limits
from loremesh_agent.domain.tools import ApprovalPolicy, Effect, ToolCall, ToolResult, ToolUse
from loremesh_agent.errors import AttachmentUnsupported, ProviderRefused
from loremesh_agent.ports import ModelText, ModelToolCall
from loremesh_kit.channel import reason_of
from loremesh_kit.errors import ServiceError
from loremesh_kit.loops import background

from .conftest import make_passage
from .replicas import DONE, QUESTION, SECONDS, Mesh, Replica, check, kinds, text_of, until, words
from .tool_doubles import CALLING, CountingTool, calls, give

pytestmark = pytest.mark.steelthread


async def run(
    mesh: Mesh, *script: Any, **settings: Any
) -> tuple[list[chat_pb2.ChatEvent], pb.ChatJob, list[pb.RunStep]]:
    mesh.provider = ScriptedProvider(*script)
    async with mesh.replica(**settings) as replica:
        made = await replica.create()
        events = await replica.watch(made.job_id)
        check(events)
        return events, await replica.job(made.job_id), await steps(replica, made.job_id)


def violations(error: aio.AioRpcError) -> list[Any]:
    status = rpc_status.from_call(error)
    found = BadRequest()
    for detail in status.details if status else ():
        detail.Unpack(found)
    return list(found.field_violations)


async def steps(replica: Replica, job_id: str) -> list[pb.RunStep]:
    return list((await replica.jobs.ListRunSteps(pb.ListRunStepsRequest(job_id=job_id))).steps)


async def pending(replica: Replica, job_id: str) -> list[approval_pb2.Approval]:
    request = approval_pb2.ListApprovalsRequest(run_id=job_id)
    return list((await replica.approvals.ListApprovals(request)).approvals)


async def waits(replica: Replica, job_id: str) -> approval_pb2.Approval:
    async def is_waiting() -> bool:
        return (await replica.job(job_id)).status == pb.CHAT_JOB_STATUS_WAITING

    await until(is_waiting)
    (approval,) = await pending(replica, job_id)
    return approval


async def decide(replica: Replica, approval: approval_pb2.Approval, decision: str, **fields: Any) -> None:
    await replica.approvals.DecideApproval(
        approval_pb2.DecideApprovalRequest(
            approval_id=approval.id, decision=approval_pb2.Decision.Value(f"DECISION_{decision}"), **fields
        )
    )


async def test_a_run_calls_tools_and_answers_and_all_of_it_is_told_and_kept(mesh: Mesh) -> None:
    one, other = CountingTool(), CountingTool(name="send", effect=Effect.SIDE_EFFECTING)
    give(mesh, one, other)
    events, job, kept = await run(mesh, calls(("read", "a"), ("send", "b"), text="Let me see."), words("It is done."))
    assert [kind for kind in kinds(events) if kind != "text_delta"] == [
        "run_started", "sources", "text_start", "text_finish", "usage", "tool_call", "tool_call",
        "tool_result", "tool_result", "text_start", "text_finish", "usage", "completed",
    ]  # fmt: skip
    assert job.status == pb.CHAT_JOB_STATUS_COMPLETED
    assert (job.result.response, job.result.model) == ("It is done.", "scripted/m")
    assert (job.usage.steps, job.usage.tool_calls, job.usage.input_tokens) == (2, 2, 18)
    assert (job.record.agent_id, job.record.model, sorted(job.record.tool_schemas)) == (
        "default", "scripted/m", ["read", "send"],
    )  # fmt: skip
    assert [(step.number, step.kind, step.state) for step in kept] == [(1, 1, 2), (2, 2, 2), (3, 2, 2), (4, 1, 2)]
    assert kept[1].idempotency_key == one.calls[0][1].idempotency_key == f"{job.job_id}.call_1_0"
    assert [message.role for message in mesh.provider.requests[1].messages] == [
        "system", "user", "assistant", "tool", "tool",
    ]  # fmt: skip


async def test_a_run_tells_which_generations_of_which_indexes_it_searched(mesh: Mesh) -> None:
    async def searches(arguments: Any) -> ToolResult:
        return ToolResult(content="found", generations={"other": 7} if arguments["x"] == "a" else {"default": 2})

    give(mesh, CountingTool(answers=searches), top_k=3)
    record = (await run(mesh, words("It is done.")))[1].record
    assert dict(record.index_generations) == {"default": 1}
    record = (await run(mesh, calls(("read", "a")), words("It is done.")))[1].record
    assert dict(record.index_generations) == {"default": 1, "other": 7}
    record = (await run(mesh, calls(("read", "a"), ("read", "b")), words("It is done.")))[1].record
    assert dict(record.index_generations) == {"default": 2, "other": 7}
    assert sorted(record.tool_schemas) == ["read"]


@pytest.mark.parametrize(
    ("failure", "code", "field"),
    [
        (AttachmentUnsupported("image/png", model="scripted/m"), grpc.StatusCode.INVALID_ARGUMENT, "attachments"),
        (ProviderRefused("Refused.", provider="scripted", model="m"), grpc.StatusCode.FAILED_PRECONDITION, None),
    ],
)
async def test_a_chat_whose_run_fails_is_refused_as_the_run_was(
    mesh: Mesh, failure: ServiceError, code: grpc.StatusCode, field: str | None
) -> None:
    give(mesh, CountingTool())
    mesh.provider = ScriptedProvider([failure])
    async with mesh.replica() as replica:
        with pytest.raises(aio.AioRpcError) as refused:
            await replica.chat.Chat(chat_pb2.ChatRequest(message=QUESTION), timeout=SECONDS)
    assert (refused.value.code(), reason_of(refused.value)) == (code, failure.reason)
    assert [each.field for each in violations(refused.value)] == ([field] if field else [])


async def test_chat_and_its_stream_are_the_run(mesh: Mesh) -> None:
    tool = CountingTool()
    give(mesh, tool)
    mesh.provider = ScriptedProvider(calls(("read", "a")), words("It is done."), calls(("read", "a")), words("Again."))
    async with mesh.replica() as replica:
        request, metadata = chat_pb2.ChatRequest(message=QUESTION), [("idempotency-key", "k")]
        response = await replica.chat.Chat(request, metadata=metadata, timeout=SECONDS)
        assert response.response == "It is done."
        assert await replica.chat.Chat(request, metadata=metadata, timeout=SECONDS) == response
        events = [event async for event in replica.chat.StreamChat(request, timeout=SECONDS) if event.seq]
        check(events)
        assert await replica.watch(events[0].run_id, after_seq=3) == events[3:]
        assert len(tool.calls) == 2


async def test_who_leaves_a_stream_cancels_its_run_and_what_was_taken_is_kept(mesh: Mesh) -> None:
    give(mesh, CountingTool())
    mesh.provider = ScriptedProvider(calls(("read", "a")), [ModelText("It is"), Pause(60), DONE])
    async with mesh.replica() as replica:
        stream = replica.chat.StreamChat(chat_pb2.ChatRequest(message=QUESTION), timeout=SECONDS)
        async for event in stream:
            if event.text_delta.text == "It is":
                break
        started = asyncio.get_running_loop().time()
        stream.cancel()
        await until(lambda: mesh.closed(2))
        assert asyncio.get_running_loop().time() - started < SECONDS / 2
        job_id = event.run_id

        async def is_kept() -> bool:
            return (await replica.job(job_id)).usage.steps == 2

        await until(is_kept)
        assert (await replica.job(job_id)).status == pb.CHAT_JOB_STATUS_CANCELLED


async def test_a_tools_passages_are_sources_that_go_on_from_those_found_first(mesh: Mesh) -> None:
    async def find(_: Any) -> ToolResult:
        return ToolResult(content="found", passages=(make_passage("It was built in 1128.", name="more"),))

    give(mesh, CountingTool(answers=find, untrusted=True), top_k=4)
    events, job, _ = await run(mesh, calls(("read", "a")), words("It is 77 metres high [1] and of 1128 [3]."))
    (result,) = [event.tool_result for event in events if event.WhichOneof("payload") == "tool_result"]
    assert [source.number for source in result.sources] == [3]
    assert [(source.number, source.cited) for source in job.result.sources] == [(1, True), (3, True)]
    assert job.result.grounded
    found = [event.citation for event in events if event.WhichOneof("payload") == "citation"]
    text = job.result.response
    assert [text[each.start_char :][:3] for each in found] == ["[1]", "[3]"]
    told = mesh.provider.requests[1].messages[-1].content
    assert '<tool_result tool="read">' in told
    assert 'number="3"' in told


async def test_an_approved_call_is_made_with_the_arguments_that_were_edited(mesh: Mesh) -> None:
    tool = CountingTool(name="send", effect=Effect.SIDE_EFFECTING)
    give(mesh, tool, uses={"send": ToolUse(name="send", approval=ApprovalPolicy.ALWAYS)})
    mesh.provider = ScriptedProvider(calls(("send", "a")), words("It is done."))
    async with mesh.replica("server") as replica, mesh.replica("worker"):
        made = await replica.create()
        approval = await waits(replica, made.job_id)
        assert (approval.tool_name, dict(approval.arguments)) == ("send", {"x": "a"})
        assert tool.calls == []
        with pytest.raises(aio.AioRpcError) as refused:
            await replica.create(conversation_id=made.conversation_id)
        assert reason_of(refused.value) == "CONVERSATION_BUSY"
        with pytest.raises(aio.AioRpcError) as refused:
            await decide(replica, approval, "APPROVE", arguments={"y": "b"})
        assert reason_of(refused.value) == "TOOL_ARGUMENTS_INVALID"
        await decide(replica, approval, "APPROVE", arguments={"x": "b"})
        events = await replica.watch(made.job_id)
        check(events)
        assert kinds(events)[-1] == "completed"
        assert {"waiting", "resumed"} < set(kinds(events))
        assert {event.attempt for event in events} == {1}
        assert [arguments for arguments, _ in tool.calls] == [{"x": "b"}]
        assert [step.kind for step in await steps(replica, made.job_id)] == [1, 3, 2, 1]


async def test_a_denied_call_is_told_to_the_model(mesh: Mesh) -> None:
    tool = CountingTool(name="send", effect=Effect.SIDE_EFFECTING)
    give(mesh, tool, uses={"send": ToolUse(name="send", approval=ApprovalPolicy.ALWAYS)})
    mesh.provider = ScriptedProvider(calls(("send", "a")), words("Then not."))
    async with mesh.replica() as replica:
        made = await replica.create()
        await decide(replica, await waits(replica, made.job_id), "DENY", comment="Not on Sundays.")
        events = await replica.watch(made.job_id)
        check(events)
        (result,) = [event.tool_result for event in events if event.WhichOneof("payload") == "tool_result"]
        assert (result.outcome, result.reason) == (chat_pb2.TOOL_OUTCOME_REFUSED, "TOOL_DENIED")
        assert "Not on Sundays." in mesh.provider.requests[1].messages[-1].content
        assert tool.calls == []


async def test_several_approvals_are_asked_for_together_and_decided_one_by_one(mesh: Mesh) -> None:
    tool = CountingTool(name="send", effect=Effect.SIDE_EFFECTING)
    give(mesh, tool, uses={"send": ToolUse(name="send", approval=ApprovalPolicy.ALWAYS)})
    mesh.provider = ScriptedProvider(calls(("send", "a"), ("send", "b"), ("send", "c")), words("It is done."))
    async with mesh.replica() as replica:
        made = await replica.create()

        async def all_asked() -> bool:
            return len(await pending(replica, made.job_id)) == 3

        await until(all_asked)
        async with background() as group:
            for approval in reversed(await pending(replica, made.job_id)):
                group.create_task(decide(replica, approval, "APPROVE"))
        events = await replica.watch(made.job_id)
        check(events)
        assert kinds(events)[-1] == "completed"
        assert sorted(arguments["x"] for arguments, _ in tool.calls) == ["a", "b", "c"]


async def test_cancelling_a_waiting_run_frees_its_conversation(mesh: Mesh) -> None:
    tool = CountingTool(name="send", effect=Effect.SIDE_EFFECTING)
    give(mesh, tool, uses={"send": ToolUse(name="send", approval=ApprovalPolicy.ALWAYS)})
    mesh.provider = ScriptedProvider(calls(("send", "a")), words("It is done."))
    async with mesh.replica() as replica:
        made = await replica.create()
        await waits(replica, made.job_id)
        await replica.jobs.CancelChatJob(pb.CancelChatJobRequest(job_id=made.job_id))
        assert await pending(replica, made.job_id) == []
        again = await replica.create(conversation_id=made.conversation_id)
        assert kinds(await replica.watch(again.job_id))[-1] == "completed"


async def test_a_spent_budget_ends_the_run_and_says_which(mesh: Mesh) -> None:
    give(mesh, CountingTool(), limits=Limits(max_steps=2))
    events, job, _ = await run(mesh, calls(("read", "a"), text="Hm."))
    assert job.status == pb.CHAT_JOB_STATUS_INCOMPLETE
    assert (events[-1].incomplete.limit, job.result.finish_reason) == ("steps", chat_pb2.FINISH_REASON_LIMIT)
    assert (job.result.response, job.usage.steps) == ("Hm.", 2)


async def test_a_spent_budget_can_be_granted_by_a_human(mesh: Mesh) -> None:
    give(mesh, CountingTool(), limits=Limits(max_steps=1, on_limit=LimitPolicy.ASK))
    mesh.provider = ScriptedProvider(calls(("read", "a")), words("It is done."))
    async with mesh.replica() as replica:
        made = await replica.create()
        approval = await waits(replica, made.job_id)
        assert approval.kind == approval_pb2.APPROVAL_KIND_BUDGET
        await decide(replica, approval, "APPROVE")
        events = await replica.watch(made.job_id)
        check(events)
        assert events[-1].completed.response == "It is done."


async def test_a_run_that_takes_too_long_is_cut_and_keeps_what_it_has(mesh: Mesh) -> None:
    give(mesh, CountingTool(), limits=Limits(max_seconds=1.0))
    events, job, _ = await run(mesh, [ModelText("It is"), Pause(60), DONE])
    assert (events[-1].incomplete.limit, job.result.response) == ("time", "It is")
    assert job.usage.steps == 1


class Prices:
    """A dear model and a cheap one."""

    def profile(self, model: str) -> Any:
        raise NotImplementedError(model)

    def known(self) -> Any:
        raise NotImplementedError

    def cost(self, model: str, usage: Usage) -> int | None:
        return (1 if model == "scripted/small" else 1000) * (usage.input_tokens + usage.output_tokens)


async def test_a_cheaper_model_takes_over_where_the_dear_one_does_not_fit(mesh: Mesh) -> None:
    mesh.models = Prices()
    limits = Limits(max_cost_micros=20_000, on_limit=LimitPolicy.FALL_BACK, fallback_model="scripted/small")
    give(mesh, CountingTool(), limits=limits)
    events, job, _ = await run(mesh, words("It is done."))
    (changed,) = [event.model_changed for event in events if event.WhichOneof("payload") == "model_changed"]
    assert (changed.to, changed.reason) == ("scripted/small", "BUDGET_EXHAUSTED")
    assert (mesh.provider.requests[0].model, job.usage.cost_micros) == ("scripted/small", 12)


async def test_a_tenants_month_can_be_spent(mesh: Mesh) -> None:
    give(mesh, CountingTool())
    events, _, _ = await run(mesh, words("It is done."), tenant_monthly_tokens=100)
    assert events[-1].failed.reason == "TENANT_BUDGET_EXHAUSTED"
    assert mesh.provider.requests == []


async def test_an_answer_by_a_schema_is_put_right_once(mesh: Mesh) -> None:
    schema = {"type": "object", "properties": {"metres": {"type": "array"}}, "required": ["metres"]}
    give(mesh, response_schema=schema)
    events, job, _ = await run(mesh, words('{"feet": 252}'), words('{"metres": [1]}'))
    assert job.result.response == '{"metres": [1]}'
    events, job, _ = await run(mesh, words('{"feet": 252}'), words("no"))
    assert events[-1].failed.reason == "MODEL_OUTPUT_INVALID"


async def test_a_message_for_a_busy_conversation_can_wait_its_turn(mesh: Mesh) -> None:
    give(mesh, CountingTool(), busy_policy=BusyPolicy.QUEUE)
    mesh.provider = ScriptedProvider([Pause(1.0), *words("One.")], words("Two."), words("Three."))
    async with mesh.replica() as replica:
        first = await replica.create()
        others = [await replica.create(f"{n}?", conversation_id=first.conversation_id) for n in range(2)]
        answers = [(await replica.watch(each.job_id))[-1].completed.response for each in (first, *others)]
        assert answers == ["One.", "Two.", "Three."]
        said = [message.content for message in await replica.messages(first.conversation_id)]
        assert said == [QUESTION, "One.", "0?", "Two.", "1?", "Three."]


async def test_a_message_for_a_busy_conversation_can_interrupt(mesh: Mesh) -> None:
    give(mesh, CountingTool(), busy_policy=BusyPolicy.INTERRUPT)
    mesh.provider = ScriptedProvider([ModelText("One"), Pause(60), DONE], words("Two."))
    async with mesh.replica() as replica:
        first = await replica.create()
        await until(lambda: replica.has_said_something(first.job_id))
        second = await replica.create("And now?", conversation_id=first.conversation_id)
        assert kinds(await replica.watch(first.job_id))[-1] == "cancelled"
        assert (await replica.watch(second.job_id))[-1].completed.response == "Two."
        await until(lambda: mesh.closed(2))


async def test_what_a_dead_worker_has_done_is_not_done_again_and_is_told_again(mesh: Mesh) -> None:
    tool = CountingTool()
    give(mesh, tool)
    mesh.provider = ScriptedProvider(
        calls(("read", "a"), text="Let me see."), [ModelText("It w"), Pause(60), DONE], words("It is done.")
    )
    async with mesh.replica("server") as one, mesh.replica("server") as other:
        made = await one.create()
        async with asyncio.timeout(SECONDS), background() as group:
            watching = group.create_task(other.watch(made.job_id))
            async with one.worker():
                await until(lambda: mesh.asked(2))
            async with other.worker():
                events = await watching
        check(events)
        assert text_of(events, 2) == "Let me see.It is done."
        assert len(mesh.provider.requests) == 3
        assert len(tool.calls) == 1
        assert [kind for kind in kinds([each for each in events if each.attempt == 2]) if kind != "text_delta"] == [
            "run_started", "sources", "text_start", "text_finish", "tool_call", "tool_result", "usage",
            "text_start", "text_finish", "usage", "completed",
        ]  # fmt: skip


async def test_a_run_can_ask_a_human(mesh: Mesh) -> None:
    give(mesh, CountingTool(), tools=(ToolUse(name="ask_human"),))
    mesh.toolbox = FixedToolbox([AskHuman()])
    asking = ToolCall(id="a", name="ask_human", arguments='{"question": "How high?"}')
    mesh.provider = ScriptedProvider([ModelToolCall(asking), CALLING], words("77 metres."))
    async with mesh.replica() as replica:
        made = await replica.create()
        approval = await waits(replica, made.job_id)
        assert (approval.kind, approval.question) == (approval_pb2.APPROVAL_KIND_QUESTION, "How high?")
        await decide(replica, approval, "ANSWER", answer="77 metres")
        events = await replica.watch(made.job_id)
        check(events)
        assert mesh.provider.requests[1].messages[-1].content == "A human answered: 77 metres"


async def test_what_a_deleted_document_said_is_in_no_journal(mesh: Mesh) -> None:
    async def find(_: Any) -> ToolResult:
        return ToolResult(content="found", passages=(make_passage("Secret words.", name="gone"),))

    give(mesh, CountingTool(answers=find, untrusted=True))
    mesh.provider = ScriptedProvider(calls(("read", "a")), words("Hm."))
    async with mesh.replica() as replica:
        made = await replica.create()
        await replica.watch(made.job_id)
        assert "Secret words." in str(await steps(replica, made.job_id))
        quotations = PostgresQuotations(database=replica.database)
        await quotations.forget("document-gone", vector_store_id="default", message_id="m")
        for kept in (
            await steps(replica, made.job_id),
            await replica.watch(made.job_id),
            await replica.job(made.job_id),
        ):
            assert "Secret words." not in str(kept)
        for table in ("steps", "events", "messages"):
            rows = await replica.database.fetch(f"SELECT {table}::text AS row FROM {table}")  # noqa: S608
            assert not [row for row in rows if "Secret words." in row["row"]]
