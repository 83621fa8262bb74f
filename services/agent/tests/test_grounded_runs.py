"""Grounding policies of agents with tools, and histories longer than a model reads, on a real Postgres and NATS."""

from typing import Any

import pytest
from loremesh.agent.v1 import chat_job_pb2 as pb
from loremesh_agent.adapters.memory import Pause
from loremesh_agent.domain.agents import Window
from loremesh_agent.domain.definitions import GroundingPolicy, Limits
from loremesh_agent.domain.tokens import estimate
from loremesh_agent.domain.tools import ToolResult
from loremesh_agent.ports import ModelText

from .conftest import make_passage
from .replicas import DONE, Mesh, check, text_of, words
from .test_runs import run
from .tool_doubles import CountingTool, calls, give

pytestmark = pytest.mark.steelthread

HIGH, OLD, RED = "It is 77 metres high [1].", "It was built in 1128 [1].", "It was painted red by an emperor [1]."
DROP, ABSTAIN = GroundingPolicy.DROP, GroundingPolicy.ABSTAIN


def refused(mesh: Mesh) -> str:
    return mesh.agents.default.wording.refusal  # type: ignore[union-attr]


@pytest.mark.parametrize("policy", [DROP, ABSTAIN])
async def test_what_nothing_supports_is_told_by_no_run(mesh: Mesh, policy: GroundingPolicy) -> None:
    give(mesh, CountingTool(), top_k=4, grounding=policy)
    events, job, _ = await run(mesh, calls(("read", "a"), text=f"Let me see. {RED}"), words(f"{HIGH} {RED} {OLD}"))
    told = f"{HIGH} {OLD}" if policy is DROP else refused(mesh)
    assert (job.result.response, job.result.grounded) == (told, policy is DROP)
    assert "emperor" not in text_of(events, 1)
    assert text_of(events, 1).endswith(told)
    assert "emperor" not in mesh.provider.requests[1].messages[2].content


async def test_what_a_tool_said_supports_a_claim_without_being_cited(mesh: Mesh) -> None:
    async def answers(_: Any) -> ToolResult:
        return ToolResult(content="The exchange rate of the euro is 1.0834 dollars.")

    give(mesh, CountingTool(answers=answers), top_k=4, grounding=ABSTAIN)
    rate = "The exchange rate of the euro is 1.0834 dollars."
    _, job, _ = await run(mesh, calls(("read", "a")), words(f"{HIGH} {rate}"))
    assert (job.result.response, job.result.grounded) == (f"{HIGH} {rate}", True)


async def test_passages_a_tool_found_support_claims(mesh: Mesh) -> None:
    async def answers(_: Any) -> ToolResult:
        return ToolResult(content="", passages=(make_passage("An emperor had it painted red.", name="red"),))

    give(mesh, CountingTool(answers=answers), grounding=DROP)
    _, job, _ = await run(mesh, calls(("read", "a")), words(f"An emperor had it painted red. {OLD}"))
    assert job.result.response == "An emperor had it painted red [1]."
    assert [source.cited for source in job.result.sources] == [True]


async def test_an_answer_that_is_cut_is_judged_as_far_as_it_came(mesh: Mesh) -> None:
    give(mesh, CountingTool(), top_k=4, grounding=DROP, limits=Limits(max_seconds=1.0))
    _, job, _ = await run(mesh, [ModelText(f"{HIGH} {RED} And"), Pause(60), DONE])
    assert job.status == pb.CHAT_JOB_STATUS_INCOMPLETE
    assert "emperor" not in job.result.response
    assert job.result.response.startswith(HIGH)


async def test_nothing_is_added_to_an_answer_that_is_data(mesh: Mesh) -> None:
    schema = {"type": "object"}
    give(mesh, CountingTool(), top_k=4, grounding=DROP, response_schema=schema)
    said = '{"height": "The lighthouse of Genoa is 77 metres high and was rebuilt in 1543."}'
    events, job, _ = await run(mesh, words(said))
    assert job.result.response == text_of(events, 1) == said


async def test_a_history_longer_than_the_model_reads_is_shortened_and_kept_whole(mesh: Mesh) -> None:
    async def answers(arguments: Any) -> ToolResult:
        return ToolResult(content=f"{arguments['x']} " * 700)

    tool = CountingTool(answers=answers, untrusted=True)
    give(mesh, tool, window=Window(context_tokens=2048, prompt_tokens=1024))
    events, job, steps = await run(
        mesh, calls(("read", "one")), calls(("read", "two")), calls(("read", "three")), words("It is done.")
    )
    check(events)
    assert job.result.response == "It is done."
    told = [message.content for message in mesh.provider.requests[-1].messages if message.role == "tool"]
    assert len(told[0]) < 400 < len(told[1]) < len(told[2])
    assert told[2].count("three") == 700
    assert all(each.endswith("</tool_result>") for each in told)
    for request in mesh.provider.requests:
        assert sum(estimate(message.content) for message in request.messages) < 2048 - 256
        assert request.messages[1] == mesh.provider.requests[0].messages[1]
    assert next(step.output["content"].count("one") for step in steps if step.name == "read") == 700
