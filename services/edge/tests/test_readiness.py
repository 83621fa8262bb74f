import asyncio

import pytest
from loremesh_edge.adapters.memory import MemoryHealth
from loremesh_edge.errors import MeshNotReady
from loremesh_edge.readiness import Component, Readiness, State

pytestmark = pytest.mark.unit


def readiness(seconds: float = 1.0, **services: MemoryHealth) -> Readiness:
    return Readiness(services=services, seconds=seconds)


async def test_a_mesh_whose_every_part_serves_is_ready_and_names_them() -> None:
    agent = MemoryHealth({"": True, "loremesh.agent.v1.ChatService": True, "dependency/postgres": True})
    assert await readiness(agent=agent, embedding=MemoryHealth({"": True})).check() == [
        Component("agent", State.READY, [Component("postgres", State.READY)]),
        Component("embedding", State.READY, []),
    ]


async def test_each_part_that_does_not_serve_is_named_with_its_state() -> None:
    mesh = readiness(
        ingestion=MemoryHealth({"": True, "dependency/postgres": False, "dependency/nats": True}),
        embedding=MemoryHealth({"": False}),
        agent=MemoryHealth(None),
    )
    with pytest.raises(MeshNotReady) as caught:
        await mesh.check()
    assert caught.value.metadata == {
        "ingestion/postgres": "NOT_READY",
        "embedding": "NOT_READY",
        "agent": "UNREACHABLE",
    }
    assert caught.value.message == (
        "The mesh is not ready: ingestion/postgres is not ready, embedding is not ready, agent is unreachable."
    )


async def test_a_service_that_says_nothing_of_itself_is_not_ready() -> None:
    with pytest.raises(MeshNotReady):
        await readiness(agent=MemoryHealth({})).check()


async def test_a_service_that_hangs_is_unreachable_and_holds_nobody_up() -> None:
    mesh = readiness(
        seconds=0.05, agent=MemoryHealth({"": True}, seconds=60), crew=MemoryHealth({"": True}, seconds=60)
    )
    with pytest.raises(MeshNotReady) as caught:
        async with asyncio.timeout(5):
            await mesh.check()
    assert set(caught.value.metadata.values()) == {"UNREACHABLE"}
