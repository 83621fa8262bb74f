import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from loremesh_cli.mesh.envoy import binary
from loremesh_edge.contracts import descriptor_set

pytestmark = pytest.mark.contract

ENVIRONMENTS = ("embedded", "compose", "kubernetes")
WEBSOCKETS = "edge-websocket"
SERVICES = {"agent", "crew", "edge", "embedding", "ingestion", "retrieval"}


@pytest.fixture(scope="module")
def configuration(repository: Path) -> dict[str, Any]:
    return yaml.safe_load((repository / "gateway" / "envoy.yaml").read_text())


def clusters(repository: Path, environment: str) -> list[dict[str, Any]]:
    text = (repository / "gateway" / "clusters" / f"{environment}.yaml").read_text()
    return yaml.safe_load(text)["static_resources"]["clusters"]


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_envoy_takes_the_configuration(repository: Path, tmp_path: Path, environment: str) -> None:
    descriptor = tmp_path / "descriptor.binpb"
    descriptor.write_bytes(descriptor_set().SerializeToString())
    text = (
        (repository / "gateway" / "envoy.yaml").read_text().replace("/etc/loremesh/descriptor.binpb", str(descriptor))
    )
    (tmp_path / "envoy.yaml").write_text(text)
    more = (repository / "gateway" / "clusters" / f"{environment}.yaml").read_text()
    command = [binary(), "--mode", "validate", "--config-path", tmp_path / "envoy.yaml", "--config-yaml", more]
    done = subprocess.run([*command, "--disable-hot-restart"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "deprecated" not in done.stderr.lower()


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_service_is_a_cluster_which_speaks_grpc_and_is_asked_for_its_health(
    repository: Path, environment: str
) -> None:
    found = clusters(repository, environment)
    assert {each["name"] for each in found} == SERVICES | {WEBSOCKETS}
    for each in found:
        if each["name"] == WEBSOCKETS:
            continue
        assert "grpc_health_check" in each["health_checks"][0]
        assert "retry_budget" in each["circuit_breakers"]["thresholds"][0]
        (options,) = each["typed_extension_protocol_options"].values()
        assert "http2_protocol_options" in options["explicit_http_config"]


def test_environments_differ_in_nothing_but_where_the_services_are(repository: Path) -> None:
    def rest(environment: str) -> list[dict[str, Any]]:
        where = {"type", "load_assignment"}
        return [{k: v for k, v in each.items() if k not in where} for each in clusters(repository, environment)]

    assert rest("embedded") == rest("compose") == rest("kubernetes")


def test_admin_listens_on_loopback_only(configuration: dict[str, Any]) -> None:
    assert configuration["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"


def test_every_reason_of_the_gateway_is_in_its_readme(repository: Path) -> None:
    used = set(re.findall(r"reason: ([A-Z_]+)", (repository / "gateway" / "envoy.yaml").read_text()))
    told = set(re.findall(r"^\| ([A-Z_]+) \|", (repository / "gateway" / "README.md").read_text(), flags=re.MULTILINE))
    assert used == told
    assert len(used) > 10


def test_identity_from_outside_is_taken_away_before_ours_is_set(configuration: dict[str, Any]) -> None:
    (listener,) = configuration["static_resources"]["listeners"]
    filters = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    assert [each["name"] for each in filters][:2] == ["strip-identity", "set-identity"]
    removed = filters[0]["typed_config"]["mutations"]["request_mutations"]
    assert {"remove_on_match": {"key_matcher": {"prefix": "x-loremesh-"}}} in removed
