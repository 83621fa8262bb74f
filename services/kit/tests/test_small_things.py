"""Clock, text, ids, identity, deadline and settings."""

import asyncio
import time
import uuid
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loremesh_kit import deadline, identity, text
from loremesh_kit.clock import ManualClock, SystemClock
from loremesh_kit.errors import Code, DependencyUnavailable, IdentityMissing, ServiceError
from loremesh_kit.ids import new_id
from loremesh_kit.settings import ServiceSettings, Shared
from pydantic import SecretStr, ValidationError
from pydantic_settings import SettingsConfigDict

pytestmark = pytest.mark.unit


@given(st.text(st.characters(exclude_categories=[])))
def test_clean_text_can_be_stored(dirty):
    cleaned = text.clean(dirty)

    assert "\x00" not in cleaned.encode().decode()
    assert text.clean(cleaned) == cleaned


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_clean_takes_nothing_else_away(storable):
    assert text.clean(storable) == storable.replace("\x00", "")


def test_clean_joins_surrogate_pairs_and_drops_lone_ones():
    assert text.clean("a\x00b\ud83d\ude00c\ud800d\udc00") == "ab😀cd"
    assert text.clean("é e\u0301 สวัสดี") == "é e\u0301 สวัสดี"


def test_ids_are_uuids_of_version_seven_in_order_of_time():
    first = new_id()
    time.sleep(0.002)
    second = new_id()

    assert uuid.UUID(first).version == 7
    assert uuid.UUID(first).variant == uuid.RFC_4122
    assert first < second


def test_there_is_no_identity_outside_a_scope():
    with pytest.raises(IdentityMissing):
        identity.current()
    ada = identity.Identity(tenant="acme", principal="ada", request_id="r")
    with identity.scope(ada):
        assert identity.current() is ada
    assert identity.current_or_none() is None


def test_an_inner_deadline_never_outlives_the_outer_one():
    assert deadline.remaining() is None
    with deadline.scope(10), deadline.scope(60):
        remaining = deadline.remaining()
        assert remaining is not None
        assert remaining <= 10
        assert deadline.within(3) == 3
    with deadline.scope(0):
        assert deadline.remaining() == 0


async def test_a_manual_clock_wakes_sleepers_in_order_and_only_when_told():
    clock = ManualClock()
    woken = []

    async def sleeper(seconds):
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        for seconds in (3, 1, 2):
            group.create_task(sleeper(seconds))
        await asyncio.sleep(0)
        await clock.advance(2)
        assert woken == [(1, 1.0), (2, 2.0)]
        await clock.advance(5)
    assert woken[-1] == (3, 3.0)
    assert (clock.now() - ManualClock().now()).total_seconds() == 7


async def test_the_system_clock_is_the_machines():
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0.001)
    assert clock.monotonic() > before
    assert clock.now().tzinfo is not None


def test_only_passing_failures_are_worth_a_retry():
    class NotThere(ServiceError):
        code = Code.NOT_FOUND
        reason = "NOT_THERE"

    assert DependencyUnavailable("postgres").retryable
    assert not NotThere("no").retryable


class Settings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="INGESTION_")

    path: str = ""
    qdrant_url: Annotated[str, Shared()] = ""


def test_a_shared_setting_is_read_with_the_prefix_first_then_without(monkeypatch):
    monkeypatch.setenv("NATS_URL", "nats://shared")
    monkeypatch.setenv("QDRANT_URL", "http://shared")
    assert Settings().nats_url == "nats://shared"
    assert Settings().qdrant_url == "http://shared"
    monkeypatch.setenv("INGESTION_NATS_URL", "nats://own")
    assert Settings().nats_url == "nats://own"


def test_other_settings_are_read_with_the_prefix_only(monkeypatch):
    monkeypatch.setenv("LISTEN", "0.0.0.0:1")
    assert Settings().path == ""
    assert Settings().listen == "127.0.0.1:0"
    monkeypatch.setenv("INGESTION_LISTEN", "127.0.0.1:5")
    assert Settings().listen == "127.0.0.1:5"


def test_an_empty_variable_is_no_value(monkeypatch):
    monkeypatch.setenv("INGESTION_METRICS_PORT", "")
    assert Settings().metrics_port == 0


def test_secrets_do_not_print(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@h/d")
    assert isinstance(Settings().database_url, SecretStr)
    assert "hunter2" not in repr(Settings())


def test_a_wrong_setting_is_refused(monkeypatch):
    monkeypatch.setenv("LOG_FORMAT", "xml")
    with pytest.raises(ValidationError):
        Settings()
