"""Crews and flows built in Python are the messages that files make."""

from datetime import timedelta
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import ParseDict
from loremesh.agent.v1 import agent_pb2
from loremesh.crew.v1 import crew_pb2, flow_pb2
from loremesh_cli import builder as b

pytestmark = pytest.mark.unit


def of_yaml(text: str, message: Any) -> Any:
    return ParseDict(yaml.safe_load(text), message)


def test_a_crew_is_built_call_after_call() -> None:
    researcher = b.Agent(
        "researcher",
        role="Senior Research Analyst",
        goal="Know {topic}.",
        model="openai/gpt-5.4-mini",
        temperature=0.0,
        tools=["search", agent_pb2.ToolUse(name="send", approval=agent_pb2.APPROVAL_POLICY_ALWAYS)],
        memory=True,
        allow_delegation=True,
    )
    research = b.Task("research", "Research {topic}.", agent=researcher, timeout=300)
    crew = (
        b.CrewBuilder("content-crew", name="Content Creation Crew")
        .agents(researcher, b.Agent("writer"))
        .tasks(research)
        .task("writing", "Write.", agent="writer", depends_on=[research], human_input="Good?", output_schema={"a": 1})
        .parallel(3)
        .keep_going()
        .memory()
        .limits(tokens=9, time=timedelta(hours=1))
        .inputs({"type": "object"}, example={"topic": "bees"})
        .build()
    )
    assert crew == of_yaml(
        """
        id: content-crew
        name: Content Creation Crew
        process: PROCESS_PARALLEL
        max_parallel: 3
        fail_fast: false
        memory: true
        limits: {max_tokens: 9, max_time: 3600s}
        inputs_schema: {type: object}
        example_inputs: {topic: bees}
        agents:
          - name: researcher
            role: Senior Research Analyst
            goal: Know {topic}.
            model: openai/gpt-5.4-mini
            temperature: 0
            tools: [{name: search}, {name: send, approval: APPROVAL_POLICY_ALWAYS}]
            memory: {recall: true, extract: true}
            allow_delegation: true
          - name: writer
        tasks:
          - {name: research, description: "Research {topic}.", agent: researcher, timeout: 300s}
          - name: writing
            description: Write.
            agent: writer
            depends_on: [research]
            human_input: {question: "Good?"}
            output_schema: {a: 1}
        """,
        crew_pb2.Crew(),
    )


def test_a_managed_crew_names_its_manager() -> None:
    boss = b.Agent("boss")
    crew = b.CrewBuilder().agents(boss).process("hierarchical", manager=boss).verbose().build()
    assert (crew.process, crew.manager, crew.verbose) == (crew_pb2.PROCESS_HIERARCHICAL, "boss", True)


def test_a_flow_is_built_call_after_call() -> None:
    approved = b.all_of(b.output_contains("approved"), b.none_of(b.output_contains("not")))
    flow = (
        b.FlowBuilder("content-flow", name="Content Creation Flow")
        .variable("rounds", "int", 0)
        .state("research", "Research Phase").initial().with_crew("research-crew", topic="{topic}")
        .state("writing").with_agent(b.Agent("writer"), b.Task("t", "Write.")).assign("rounds", "rounds + 1")
        .state("review").with_flow("review-flow", revision=2)
        .state("sending").with_tool("send", to="{to}")
        .state("pause").wait(60, signal="go")
        .state("published", "Published").final()
        .state("lost").final(fails=True)
        .transition("research", "writing").when(b.on_success())
        .transition("review", "published").when(approved).with_priority(10)
        .transition("review", "writing").when(b.expression("rounds < 3"))
        .transition("review", "lost")
        .transition("pause", "lost").when(b.any_of(b.on_failure(), b.variable_equals("rounds", 3)))
        .transition("sending", "pause").when(b.output_matches("(?i)sent"))
        .output("{output.writing}")
        .max_iterations(9)
        .build()
    )  # fmt: skip
    assert flow == of_yaml(
        """
        id: content-flow
        name: Content Creation Flow
        variables: [{name: rounds, type: VARIABLE_TYPE_INT, initial: 0}]
        states:
          - {id: research, name: Research Phase, initial: true,
             crew: {crew_id: research-crew, inputs: {topic: "{topic}"}}}
          - id: writing
            agent: {agent: {name: writer}, task: {name: t, description: Write.}}
            assignments: [{variable: rounds, expression: rounds + 1}]
          - {id: review, flow: {flow_id: review-flow, revision: 2}}
          - {id: sending, tool: {tool: send, arguments: {to: "{to}"}}}
          - {id: pause, wait: {duration: 60s, signal: go}}
          - {id: published, name: Published, final: true}
          - {id: lost, final: true, fails: true}
        transitions:
          - {from: research, to: writing, condition: {on_success: {}}}
          - from: review
            to: published
            condition: {and: {conditions: [{output_contains: {text: approved}},
                                           {not: {output_contains: {text: not}}}]}}
            priority: 10
          - {from: review, to: writing, condition: {expression: rounds < 3}}
          - {from: review, to: lost}
          - from: pause
            to: lost
            condition: {or: {conditions: [{on_failure: {}}, {variable_equals: {variable: rounds, value: 3}}]}}
          - {from: sending, to: pause, condition: {output_matches: "(?i)sent"}}
        output: "{output.writing}"
        max_iterations: 9
        """,
        flow_pb2.Flow(),
    )


def test_what_is_built_later_is_not_in_what_was_built() -> None:
    crew, flow = b.CrewBuilder("c"), b.FlowBuilder("f")
    first, second = crew.build(), flow.build()
    crew.agents(b.Agent("a"))
    flow.state("s")
    assert (list(first.agents), list(second.states)) == ([], [])
    assert (len(crew.build().agents), len(flow.build().states)) == (1, 1)


def test_one_agent_can_be_in_two_crews() -> None:
    agent = b.Agent("a")
    one = b.CrewBuilder().agents(agent).build()
    one.agents[0].role = "changed"
    assert b.CrewBuilder().agents(agent).build().agents[0].role == ""


def test_always_holds() -> None:
    assert b.always().WhichOneof("kind") == "always"
