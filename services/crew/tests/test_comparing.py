"""Runs compared and drawn, without any of what they rest on."""

from dataclasses import replace

import pytest
from loremesh_crew.domain.comparing import differences, mermaid
from loremesh_crew.domain.definitions import AgentWork, CrewAgent, CrewTask, Flow, FlowState
from loremesh_crew.domain.machine import Pinned, RunKind, RunStatus, TaskStatus, TaskView, Usage, View

pytestmark = pytest.mark.unit


def run(*tasks: TaskView, kind: RunKind = RunKind.CREW, **inputs: object) -> tuple[Pinned, View]:
    pinned = Pinned(run_id="r", root_run_id="r", kind=kind, inputs=inputs)
    return pinned, View(status=RunStatus.COMPLETED, tasks=tasks, usage=Usage())


def test_what_only_one_of_them_has_differs_from_nothing() -> None:
    found = differences(run(TaskView(name="a", output="x"), topic="tea"), run())

    assert ("inputs.topic", "tea", "") in found
    assert ("tasks.a.output", "x", "") in found
    assert differences(run(topic="tea"), run(topic="tea")) == []


def test_flows_differ_in_what_their_agents_are_to_do() -> None:
    def flow(model: str, description: str) -> tuple[Pinned, View]:
        work = AgentWork(agent=CrewAgent(name="ann", model=model), task=CrewTask(name="t", description=description))
        pinned, view = run(kind=RunKind.FLOW)
        return replace(pinned, flow=Flow(id="f", states=(FlowState(id="review", agent=work),), transitions=())), view

    assert differences(flow("", "Judge it."), flow("local/other", "Praise it.")) == [
        ("states.review.model", "", "local/other"),
        ("states.review.description", "Judge it.", "Praise it."),
    ]


def test_no_name_breaks_out_of_a_drawing() -> None:
    drawn = mermaid(*run(TaskView(name='x"]\nclick n1 "javascript:alert(1)', agent="<script>")))

    assert drawn.count("\n    n") == 1
    assert "javascript:" not in drawn
    assert "<script>" not in drawn


def test_a_flow_is_drawn_in_the_order_of_its_visits() -> None:
    visits = [TaskView(name="draft", visit=1), TaskView(name="review", visit=1), TaskView(name="draft", visit=2)]
    drawn = mermaid(*run(*visits, kind=RunKind.FLOW))

    assert "n1 --> n2" in drawn
    assert "n2 --> n3" in drawn
    assert "draft (2)" in drawn


def test_a_task_stands_in_the_colour_of_its_status() -> None:
    drawn = mermaid(*run(TaskView(name="a", status=TaskStatus.FAILED), TaskView(name="b", depends_on=("a",))))

    assert 'n1["a<br/>FAILED"]:::failed' in drawn
    assert "n1 --> n2" in drawn
