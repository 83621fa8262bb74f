"""The examples of the repository: nothing is wrong with them, and they do what they say."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from google.protobuf.json_format import ParseDict
from loremesh.crew.v1 import flow_pb2
from loremesh_crew.domain import crew_checks, crewai_yaml, flow_checks
from loremesh_crew.domain.definitions import Flow
from loremesh_crew.domain.flow_machine import FlowMachine
from loremesh_crew.domain.machine import Event, Pinned, RunKind, SignalCame, Started, TimerFired, View
from loremesh_crew.flow_protos import read_flow

pytestmark = pytest.mark.unit

EXAMPLES = Path(__file__).parents[3] / "examples"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_crewai_project_is_a_crew() -> None:
    folder = EXAMPLES / "crewai-project" / "config"
    crew = crewai_yaml.read(
        agents=(folder / "agents.yaml").read_text("utf-8"), tasks=(folder / "tasks.yaml").read_text("utf-8")
    )
    assert list(crew_checks.faults(crew)) == []
    assert [(task.name, task.agent) for task in crew.tasks] == [
        ("research_task", "researcher"),
        ("reporting_task", "reporting_analyst"),
    ]
    assert (crew.tasks[1].depends_on, crew.tasks[1].output_file) == (("research_task",), "report.md")
    assert crew.agents[0].role.strip() == "{topic} Researcher"


def release() -> Flow:
    return read_flow(ParseDict(yaml.safe_load((EXAMPLES / "release-flow.yaml").read_text("utf-8")), flow_pb2.Flow()))


def ended(*events: Event) -> View:
    pinned = Pinned(run_id="r", root_run_id="r", kind=RunKind.FLOW, flow=release())
    machine = FlowMachine()
    state = machine.begin(pinned)
    for event in (Started(time=NOW), *events):
        state, _ = machine.decide(pinned, state, event)
    return machine.view(pinned, state)


def test_nothing_is_wrong_with_the_flow_that_waits() -> None:
    assert list(flow_checks.faults(release())) == []


@pytest.mark.parametrize(
    ("payload", "state"), [("ship it", "shipped"), ("not yet", "held-back"), ({"a": 1}, "held-back")]
)
def test_a_release_goes_where_the_decision_says(payload: object, state: str) -> None:
    view = ended(SignalCame(time=NOW, signal="decision", signal_id="s", payload=payload))
    assert (view.status, view.current_state) == ("COMPLETED", state)
    assert view.output.startswith("Decided: ")


def test_a_release_that_nobody_decides_is_held_back() -> None:
    view = ended(TimerFired(time=NOW, timer="wait:1"))
    assert (view.status, view.current_state) == ("COMPLETED", "held-back")
