"""A service with nothing of its own, run as a process by tests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from loremesh_kit.events import connect
from loremesh_kit.outbox import Relay
from loremesh_kit.postgres import open_database
from loremesh_kit.server import Wired, main
from loremesh_kit.settings import ServiceSettings
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="AGENT_")

    must_be_told: SecretStr


@asynccontextmanager
async def wire(settings: Settings) -> AsyncIterator[Wired]:
    async with open_database(settings) as database, connect(settings.nats_url, service="agent") as bus:
        yield Wired(
            servicers=[],
            background=[Relay(database=database, bus=bus, service="agent")],
            probes={"postgres": database.probe, "nats": bus.probe},
        )
    structlog.get_logger(__name__).info(f"told {settings.must_be_told.get_secret_value()}")


main(service="agent", settings=Settings, wire=wire)
