"""What a mesh consists of, by what its caller's environment says."""

from collections.abc import Mapping
from itertools import count
from pathlib import Path

import pytest
from loremesh_cli.mesh.credentials import Credentials
from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.plan import Plan, outside, port_names
from loremesh_cli.mesh.surroundings import Surroundings
from loremesh_cli.mesh.unit import Unit

pytestmark = pytest.mark.unit

CREDENTIALS = Credentials()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def units(home: Home, caller: Mapping[str, str] = {}) -> dict[str, Unit]:
    numbers = dict(zip(["gateway", *port_names()], count(20_000)))
    home.secrets.write_text("{}")
    around = Surroundings(home=home, ports=numbers, credentials=CREDENTIALS, caller=caller)
    return {unit.name: unit for unit in Plan(around).units()}


def environment(unit: Unit) -> Mapping[str, str]:
    return unit.program.environment


@pytest.mark.parametrize(
    ("variable", "value", "gone"),
    [
        ("DATABASE_URL", "postgresql://admin:pw@db.example:5432/loremesh", "postgres"),
        ("NATS_URL", "nats://nats.example:4222", "nats"),
        ("S3_ENDPOINT_URL", "https://s3.example", "seaweedfs"),
        ("OPENAI_API_KEY", "sk-secret", "local-model"),
        ("OPENAI_BASE_URL", "http://models.example/v1", "local-model"),
    ],
)
def test_an_outside_server_takes_the_place_of_ours(home: Home, variable: str, value: str, gone: str) -> None:
    assert gone in units(home)
    with_outside = units(home, {variable: value})
    assert gone not in with_outside
    assert all(gone not in (*unit.needs, *unit.uses) for unit in with_outside.values())
    assert environment(with_outside["agent"])[variable] == value


def test_a_server_of_ones_own_that_wants_no_key_is_asked_and_not_the_local_model(home: Home) -> None:
    agent = environment(units(home, {"OPENAI_BASE_URL": "http://models.example/v1"})["agent"])
    assert agent["AGENT_PROVIDER"] == "openai"


def test_a_local_model_that_does_not_run_is_none_to_be_asked(home: Home) -> None:
    assert "LOCAL_MODEL_URL" in environment(units(home)["agent"])
    assert "LOCAL_MODEL_URL" not in environment(units(home, {"OPENAI_API_KEY": "sk-secret"})["agent"])
    own = {"OPENAI_API_KEY": "sk-secret", "LOCAL_MODEL_URL": "http://127.0.0.1:1/v1"}
    assert environment(units(home, own)["agent"])["LOCAL_MODEL_URL"] == own["LOCAL_MODEL_URL"]


def test_the_local_model_stays_for_who_asks_for_it_in_spite_of_a_key(home: Home) -> None:
    assert "local-model" in units(home, {"OPENAI_API_KEY": "sk-secret", "AGENT_PROVIDER": "local"})


def test_what_is_told_of_outside_servers_holds_no_secret() -> None:
    said = outside({"DATABASE_URL": "postgresql://admin:pw@db.example:5432/x", "OPENAI_API_KEY": "sk-secret"})
    assert said == {"postgres": "db.example:5432", "local-model": "OPENAI_API_KEY"}


def test_everything_needed_comes_before_what_needs_it(home: Home) -> None:
    seen: set[str] = set()
    for unit in units(home).values():
        assert set(unit.needs) <= seen
        seen.add(unit.name)


def test_the_database_is_created_at_the_first_start_only(home: Home) -> None:
    assert "create-postgres" in units(home)
    (home.root / "postgres" / "data").mkdir(parents=True)
    (home.root / "postgres" / "data" / "PG_VERSION").touch()
    assert "create-postgres" not in units(home)


def test_a_step_that_was_done_is_left_out_until_what_it_is_done_with_changes(home: Home) -> None:
    stamp = units(home)["databases"].stamp
    assert stamp is not None
    stamp.file.parent.mkdir()
    stamp.put()
    assert "databases" not in units(home)
    assert "databases" not in units(home)["migrate-agent"].needs
    stamp.file.write_text("done with other passwords")
    assert "databases" in units(home)


def test_in_a_database_of_the_callers_nothing_is_taken_for_done(home: Home) -> None:
    caller = {"DATABASE_URL": "postgresql://admin:pw@db.example/loremesh"}
    assert units(home, caller)["migrate-agent"].stamp is None


def test_a_service_has_its_own_plain_role_and_no_other_password(home: Home) -> None:
    ingestion = environment(units(home)["ingestion"])
    assert f"//ingestion:{CREDENTIALS.ingestion}@" in ingestion["INGESTION_DATABASE_URL"]
    others = (CREDENTIALS.postgres, CREDENTIALS.ingestion_owner, CREDENTIALS.agent, CREDENTIALS.agent_owner)
    assert not [value for value in ingestion.values() for secret in others if secret in value]
    assert not [value for value in environment(units(home)["edge"]).values() if CREDENTIALS.ingestion in value]


def test_only_the_migration_has_the_owners_password(home: Home) -> None:
    assert CREDENTIALS.agent_owner in environment(units(home)["migrate-agent"])["AGENT_MIGRATE_DATABASE_URL"]


def test_the_callers_settings_of_a_service_reach_it(home: Home) -> None:
    assert environment(units(home, {"AGENT_TOP_K": "3"})["agent"])["AGENT_TOP_K"] == "3"


def test_addresses_of_another_mesh_in_the_callers_environment_are_not_taken_over(home: Home) -> None:
    agent = environment(units(home, {"AGENT_LISTEN": "x:1", "INGESTION_TARGET": "x:2"})["agent"])
    assert agent["AGENT_LISTEN"].startswith("127.0.0.1:")
    assert agent["INGESTION_TARGET"].startswith("127.0.0.1:")


def test_servers_do_not_see_the_callers_keys(home: Home) -> None:
    for name in ("postgres", "nats", "seaweedfs", "gateway"):
        assert "ANTHROPIC_API_KEY" not in environment(units(home, {"ANTHROPIC_API_KEY": "k"})[name])
