"""CrewAI's files: taken as they are meant, refused with the line where they are not."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loremesh_crew.domain import crewai_yaml
from loremesh_crew.domain.definitions import (
    Crew,
    CrewAgent,
    CrewTask,
    Guardrail,
    HumanInput,
    MemorySettings,
    Process,
    ToolUse,
)
from loremesh_crew.errors import YamlInvalid

pytestmark = pytest.mark.unit

AGENTS = """\
# Who they are.
researcher:
  role: >
    {topic} Senior Data Researcher
  goal: >
    Uncover cutting-edge developments
    in {topic}
  backstory: |
    You're a seasoned researcher.
    Known for "JSON": {"a": 1}.
  llm: openai/gpt-4o-mini
  temperature: 0.3
  tools: [search, web_search]
  allow_delegation: true
  max_iter: 7
  max_rpm: 20
  verbose: yes
  memory: true
  max_execution_time: 90
  cache: true
reporting_analyst:
  role: "Reporting analyst"
  goal: 'Write {topic} reports'
  backstory: Plain.
  llm:
  memory: false
"""
TASKS = """\
research_task:
  description: >
    Research {topic}
  expected_output: A list
  agent: researcher
  async_execution: true
  tools:
    - search
reporting_task:
  description: Review the context
  expected_output: A full report
  agent: reporting_analyst
  context: [research_task, research_task]
  output_file: out/{topic}/report v1.md
  human_input: true
  guardrail: It names every source.
  guardrail_max_retries: 4
  markdown: true
"""


def test_a_project_of_crewai_is_a_crew() -> None:
    crew = crewai_yaml.read(agents=AGENTS, tasks=TASKS, crew_id="latest", name="Latest", process=Process.PARALLEL)
    assert crew == Crew(
        id="latest",
        name="Latest",
        process=Process.PARALLEL,
        agents=(
            CrewAgent(
                name="researcher",
                role="{topic} Senior Data Researcher",
                goal="Uncover cutting-edge developments in {topic}",
                backstory='You\'re a seasoned researcher.\nKnown for "JSON": {"a": 1}.',
                model="openai/gpt-4o-mini",
                temperature=0.3,
                tools=(ToolUse(name="search"), ToolUse(name="web_search")),
                allow_delegation=True,
                max_iter=7,
                max_rpm=20,
                verbose=True,
                memory=MemorySettings(recall=True, extract=True),
            ),
            CrewAgent(
                name="reporting_analyst",
                role="Reporting analyst",
                goal="Write {topic} reports",
                backstory="Plain.",
                memory=MemorySettings(),
            ),
        ),
        tasks=(
            CrewTask(
                name="research_task",
                description="Research {topic}",
                expected_output="A list",
                agent="researcher",
                tools=(ToolUse(name="search"),),
                timeout=90.0,
            ),
            CrewTask(
                name="reporting_task",
                description="Review the context",
                expected_output="A full report",
                agent="reporting_analyst",
                depends_on=("research_task",),
                output_file="report-v1.md",
                human_input=HumanInput(),
                guardrails=(Guardrail(criterion="It names every source."),),
                max_guardrail_rounds=4,
            ),
        ),
    )


def one(fields: str) -> str:
    return "ann:\n" + "".join(f"  {line}\n" for line in fields.splitlines())


def bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines.extend(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10))
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "problem", "line"),
    [
        ("", "empty", 1),
        ("# nothing\n", "empty", 1),
        ("just text", "names, and under each", 1),
        ("- ann\n- bob", "names, and under each", 1),
        ("ann: text", "'ann'", 1),
        ("ann:\n", "'ann'", 1),
        ("two words:\n  role: x", "letters, digits", 1),
        (one("role: x\nrole: y"), "twice", 3),
        (one("role: x") + one("role: y"), "twice", 3),
        (one("role: x\nmood: good"), "'mood'", 3),
        (one("role: x\nallow_code_execution: true"), "'allow_code_execution'", 3),
        (one("role: [x]"), "text", 2),
        (one("tools: search"), "list of texts", 2),
        (one("tools: [a, [b]]"), "list of texts", 2),
        (one("tools: [a, ]\nverbose: maybe"), "true or false", 3),
        (one('verbose: "true"'), "true or false", 2),
        (one("max_iter: many"), "whole number", 2),
        (one("max_iter: 1.5"), "whole number", 2),
        (one("max_iter: 99999999999999999999"), "whole number", 2),
        (one("temperature: .nan"), "number", 2),
        (one("role: &x text"), "anchors", 2),
        (one("role: *x"), "anchors", 2),
        (bomb(), "anchors", 1),
        (one("<<: {role: x}"), "merge keys", 2),
        (one("role: !!python/object:os.system x"), "tags", 2),
        (one("role: !x y"), "tags", 2),
        ("%TAG ! tag:example.com,2000:\n---\nann: {}\n", "%TAG", 1),
        (one("role: x") + "---\n" + one("role: y"), "more than one", 3),
        (one("? [a]\n: b"), "a key is to be text", 2),
        ("ann:\n\trole: x", "tab", 2),
        ("ann:\n  role: x\n  \tgoal: y", "tab", 3),
        ("ann: {role: x", "no YAML", 2),
        ("ann:\n  role: 'x\n", "no YAML", 3),
        ("ann: " + "[" * 50, "deeper than", 1),
        ("ann: " + "{a: " * 50, "deeper than", 1),
        ("ann: [" + "x, " * 30_000 + "]", "more than 20000 parts", 1),
        ("ann:\n  role: \x01", "characters", 0),
    ],
)
@pytest.mark.timeout(20)
def test_what_is_not_taken_is_refused_with_its_line(text: str, problem: str, line: int) -> None:
    with pytest.raises(YamlInvalid) as caught:
        crewai_yaml.read(agents=text, tasks=TASKS)
    assert problem in caught.value.metadata["problem"]
    assert int(caught.value.metadata["line"]) == line
    assert caught.value.violations[0].field == "agents_yaml"


@pytest.mark.parametrize("text", ["x" * 1_000_000, "[" * 250_000, "? " * 120_000, "- " * 120_000, "a: " * 80_000])
@pytest.mark.timeout(20)
def test_a_line_of_a_megabyte_is_refused_soon(text: str) -> None:
    with pytest.raises(YamlInvalid):
        crewai_yaml.read(agents=text, tasks=TASKS)


def test_the_file_of_tasks_is_named_where_the_fault_is_there() -> None:
    with pytest.raises(YamlInvalid) as caught:
        crewai_yaml.read(agents=AGENTS, tasks=one("description: x\noutput_pydantic: Report"))
    assert (caught.value.violations[0].field, caught.value.metadata["line"]) == ("tasks_yaml", "3")


@given(st.text(alphabet=st.sampled_from("ab:-?[]{}&*!|>'\"%@`#, \n\t<~\x00é\ud800"), max_size=60))
@settings(deadline=None, max_examples=300)
def test_any_text_is_a_crew_or_refused(text: str) -> None:
    with suppress(YamlInvalid):
        crewai_yaml.read(agents=text, tasks=text)
