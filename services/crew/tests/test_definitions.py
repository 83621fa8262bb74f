"""Definitions: the fake keeps them as Postgres does, and neither changes what it is given."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

import psycopg
import pytest
from loremesh_crew.adapters.memory import MemoryDefinitions
from loremesh_crew.adapters.postgres_definitions import PostgresDefinitions
from loremesh_crew.domain import definitions as d
from loremesh_crew.domain.machine import RunKind
from loremesh_crew.engine.library import DefinitionLibrary
from loremesh_crew.errors import CrewExists, CrewNotFound, CrewRevisionNotFound, FlowExists, FlowNotFound
from loremesh_crew.ports import DefinitionStore
from loremesh_kit.clock import SystemClock
from loremesh_kit.postgres import open_database
from loremesh_kit.settings import ServiceSettings
from loremesh_kit.testing import caller, fresh_database

pytestmark = pytest.mark.conformance

SCHEMA = {"type": "object", "properties": {"topic": {"type": "string", "minLength": 1, "default": None}}}
AGENT = d.CrewAgent(
    name="ann",
    role="R {topic}",
    goal="G",
    backstory="Bé",
    model="local/x",
    temperature=0.25,
    tools=(
        d.ToolUse(name="search"),
        d.ToolUse(name="send", approval="ALWAYS", approval_seconds=60.0, on_expiry="FAIL"),
    ),
    memory=d.MemorySettings(recall=True, max_items=3, ttl_seconds=90.5, embeddings=False),
    max_iter=3,
    vector_store_ids=("a", "b"),
    max_output_tokens=9,
)
TASK = d.CrewTask(
    name="write",
    description="D",
    depends_on=("read",),
    tools=(d.ToolUse(name="x"),),
    timeout=1.5,
    retry=d.RetryPolicy(max_attempts=1, initial_pause=0.0, retry_incomplete=True),
    human_input=d.HumanInput(question="Good?", due_seconds=60.0, on_expiry="APPROVE", assignee="eve", max_rounds=1),
    guardrails=(d.Guardrail(min_length=3), d.Guardrail(matches="a|b", message="No."), d.Guardrail(expression="true")),
    max_guardrail_rounds=0,
    output_schema=SCHEMA,
    output_file="x.md",
    priority=-3,
)
CREW = d.Crew(
    id="crew",
    name="Crew",
    agents=(AGENT, d.CrewAgent(name="kept", agent_id="k", agent_revision=3)),
    tasks=(d.CrewTask(name="read", description="R"), TASK),
    process=d.Process.HIERARCHICAL,
    manager="ann",
    fail_fast=False,
    limits=d.RunLimits(max_tokens=2**53, max_seconds=0.5),
    inputs_schema=SCHEMA,
    example_inputs={"topic": "bees", "n": [1, 2.5, None, {"a": True}]},
)
NESTED = d.Condition(
    kind=d.ConditionKind.AND,
    conditions=(
        d.Condition(kind=d.ConditionKind.NOT, conditions=(d.Condition(kind=d.ConditionKind.ON_FAILURE),)),
        d.Condition(kind=d.ConditionKind.VARIABLE_EQUALS, variable="v", value=[1, "x"]),
        d.Condition(kind=d.ConditionKind.OUTPUT_CONTAINS, text="ok", case_sensitive=True),
    ),
)
FLOW = d.Flow(
    id="flow",
    states=(
        d.FlowState(id="a", initial=True, crew=d.CrewWork(crew_id="crew", revision=2, inputs={"topic": "{x}"})),
        d.FlowState(id="b", agent=d.AgentWork(agent=AGENT, task=TASK)),
        d.FlowState(
            id="c",
            tool=d.ToolWork(tool="t", arguments={"a": [1]}),
            assignments=(d.Assignment(variable="v", expression="1"),),
        ),
        d.FlowState(id="d", wait=d.WaitWork(seconds=3.5, signal="go")),
        d.FlowState(id="e", flow=d.FlowWork(flow_id="other", inputs={"y": "1"}), final=True, fails=True),
    ),
    transitions=(d.Transition(from_state="a", to_state="b", condition=NESTED, priority=3),),
    variables=(
        d.Variable(name="v", type=d.VariableType.LIST, initial=[1, {"a": None}]),
        d.Variable(name="s"),
        d.Variable(name="i", type=d.VariableType.INT, initial=3),
    ),
    inputs_schema=SCHEMA,
)


@dataclass(frozen=True)
class Stores:
    crews: DefinitionStore
    flows: DefinitionStore


@pytest.fixture(params=["memory", "postgres"])
async def stores(request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    if request.param == "memory":
        clock = SystemClock()
        with caller():
            yield Stores(
                MemoryDefinitions(clock=clock, exists=CrewExists), MemoryDefinitions(clock=clock, exists=FlowExists)
            )
        return
    migrations = files("loremesh_crew") / "migrations"
    async with (
        fresh_database(request.getfixturevalue("postgres_url"), schema="crew", migrations=migrations) as urls,
        open_database(ServiceSettings(database_url=urls.plain)) as database,
    ):
        with caller():
            yield Stores(
                PostgresDefinitions(database=database, kind=RunKind.CREW, type_=d.Crew),
                PostgresDefinitions(database=database, kind=RunKind.FLOW, type_=d.Flow),
            )


def times_of(kept: Any) -> dict[str, datetime]:
    return {"create_time": kept.create_time, "update_time": kept.update_time}


@pytest.mark.parametrize(("kind", "definition"), [("crews", CREW), ("flows", FLOW)])
async def test_a_definition_is_read_as_it_was_written(stores: Stores, kind: str, definition: Any) -> None:
    store: DefinitionStore = getattr(stores, kind)
    kept = await store.create(definition)
    assert kept == replace(definition, revision=1, **times_of(kept))
    assert kept.create_time.tzinfo is not None
    assert abs((datetime.now(UTC) - kept.create_time).total_seconds()) < 600
    assert kept == await store.current(definition.id) == await store.revision(definition.id, 1)
    assert type(kept.inputs_schema) is dict


async def test_a_crew_and_a_flow_of_one_id_are_two(stores: Stores) -> None:
    await stores.crews.create(CREW)
    await stores.flows.create(replace(FLOW, id=CREW.id))
    await stores.flows.delete(CREW.id)
    assert await stores.crews.current(CREW.id) is not None
    assert await stores.flows.current(CREW.id) is None


async def test_an_id_is_given_once(stores: Stores) -> None:
    await stores.crews.create(CREW)
    with pytest.raises(CrewExists):
        await stores.crews.create(CREW)
    await stores.flows.create(FLOW)
    with pytest.raises(FlowExists):
        await stores.flows.create(FLOW)


async def test_a_revision_never_changes_and_the_next_follows_the_one_expected(stores: Stores) -> None:
    first = await stores.crews.create(CREW)
    second = await stores.crews.revise(replace(first, name="Second"), expected=1)
    assert (second.revision, second.name, second.create_time) == (2, "Second", first.create_time)
    assert second.update_time >= first.update_time
    assert await stores.crews.revise(replace(first, name="Late"), expected=1) is None
    assert await stores.crews.revise(replace(first, id="other"), expected=1) is None
    assert await stores.crews.revision(CREW.id, 1) == first
    assert await stores.crews.revision(CREW.id, 3) is None


async def test_one_made_anew_goes_on_counting_and_its_old_revisions_stay(stores: Stores) -> None:
    first = await stores.crews.create(CREW)
    assert await stores.crews.delete(CREW.id)
    assert not await stores.crews.delete(CREW.id)
    assert await stores.crews.current(CREW.id) is None
    assert await stores.crews.page(after="", limit=10) == []
    assert await stores.crews.revise(first, expected=1) is None
    assert await stores.crews.revision(CREW.id, 1) == first
    second = await stores.crews.create(replace(CREW, name="Anew"))
    assert (second.revision, second.name) == (2, "Anew")
    assert second.create_time > first.create_time
    assert await stores.crews.revision(CREW.id, 1) == first


async def test_pages_go_by_id_and_revisions_backwards(stores: Stores) -> None:
    for id_ in ("b", "a", "C", "c"):
        await stores.crews.create(replace(CREW, id=id_))
    for i in range(3):
        await stores.crews.revise(replace(CREW, id="b", name=str(i)), expected=i + 1)

    async def ids(after: str, limit: int) -> list[str]:
        return [each.id for each in await stores.crews.page(after=after, limit=limit)]

    async def numbers(before: int | None, limit: int) -> list[int]:
        return [each.revision for each in await stores.crews.revisions("b", before=before, limit=limit)]

    assert await ids("", 9) == ["C", "a", "b", "c"]
    assert await ids("a", 1) == ["b"]
    assert await numbers(None, 9) == [4, 3, 2, 1]
    assert await numbers(4, 2) == [3, 2]
    assert (await stores.crews.page(after="a", limit=1))[0].name == "2"


async def test_tenants_do_not_see_one_another(stores: Stores) -> None:
    await stores.crews.create(CREW)
    with caller(tenant="umbrella"):
        assert await stores.crews.current(CREW.id) is None
        assert await stores.crews.revision(CREW.id, 1) is None
        assert await stores.crews.page(after="", limit=9) == []
        assert await stores.crews.revise(CREW, expected=1) is None
        assert not await stores.crews.delete(CREW.id)
        await stores.crews.create(replace(CREW, name="Theirs"))
    assert (await stores.crews.current(CREW.id)).name == "Crew"


async def test_of_many_changes_at_once_one_is_the_next(stores: Stores) -> None:
    await stores.crews.create(CREW)
    done: list[Any] = []

    async def change(name: str) -> None:
        done.append(await stores.crews.revise(replace(CREW, name=name), expected=1))

    async with asyncio.TaskGroup() as group:
        for i in range(5):
            group.create_task(change(str(i)))
    (kept,) = [each for each in done if each is not None]
    assert await stores.crews.current(CREW.id) == kept


async def test_without_a_tenant_nothing_is_seen(postgres_url: str) -> None:
    migrations = files("loremesh_crew") / "migrations"
    async with fresh_database(postgres_url, schema="crew", migrations=migrations) as urls:
        async with open_database(ServiceSettings(database_url=urls.plain)) as database:
            with caller():
                await PostgresDefinitions(database=database, kind=RunKind.CREW, type_=d.Crew).create(CREW)
        async with await psycopg.AsyncConnection.connect(urls.plain) as connection:
            for table in ("definitions", "definition_revisions"):
                rows = await (await connection.execute(f"SELECT * FROM {table}")).fetchall()  # noqa: S608
                assert rows == []


async def test_the_library_has_those_built_in_before_those_kept(stores: Stores) -> None:
    built_in = replace(CREW, id="ours", built_in=True, name="Ours")
    library = DefinitionLibrary(
        crews=stores.crews, flows=stores.flows, built_in_crews={"ours": built_in}, built_in_flows={}
    )
    await stores.crews.create(replace(CREW, id="ours", name="Theirs"))
    kept = await stores.crews.create(CREW)
    assert await library.crew("ours") == await library.crew("ours", revision=1) == built_in
    assert await library.crew(CREW.id) == await library.crew(CREW.id, revision=1) == kept
    await stores.crews.delete(CREW.id)
    assert await library.crew(CREW.id, revision=1) == kept
    missing: list[tuple[Callable[[], Any], type[Exception]]] = [
        (lambda: library.crew(CREW.id), CrewNotFound),
        (lambda: library.crew(CREW.id, revision=2), CrewRevisionNotFound),
        (lambda: library.crew("ours", revision=2), CrewRevisionNotFound),
        (lambda: library.crew("nobody", revision=2), CrewNotFound),
        (lambda: library.flow("nobody"), FlowNotFound),
    ]
    for ask, error in missing:
        with pytest.raises(error):
            await ask()
