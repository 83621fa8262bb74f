"""The configuration Envoy is started with."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from loremesh_cli.mesh.gateway import effective
from loremesh_cli.mesh.home import repository

pytestmark = pytest.mark.unit

PORTS = {
    name: port
    for port, name in enumerate(
        ("gateway", "gateway-admin", "ingestion", "embedding", "retrieval", "agent", "crew", "edge", "edge-websocket"),
        1,
    )
}


@pytest.fixture(scope="module")
def configuration() -> dict[str, Any]:
    clone = repository()
    assert clone is not None
    loaded = (
        yaml.safe_load((clone / "gateway" / name).read_text()) for name in ("envoy.yaml", "clusters/embedded.yaml")
    )
    return effective(*loaded, ports=PORTS, descriptor=Path("/data/descriptor.binpb"))


def addresses(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        own = [value["socket_address"]] if "socket_address" in value else []
        return own + [found for each in value.values() for found in addresses(each)]
    return [found for each in value for found in addresses(each)] if isinstance(value, list) else []


def test_every_address_is_a_port_of_this_mesh_on_loopback(configuration: dict[str, Any]) -> None:
    assert {each["address"] for each in addresses(configuration)} == {"127.0.0.1"}
    assert sorted(each["port_value"] for each in addresses(configuration)) == sorted(PORTS.values())


def test_each_cluster_has_its_services_port(configuration: dict[str, Any]) -> None:
    for cluster in configuration["static_resources"]["clusters"]:
        assert [each["port_value"] for each in addresses(cluster)] == [PORTS[cluster["name"]]]


def test_the_contracts_are_read_from_the_data_directory(configuration: dict[str, Any]) -> None:
    text = yaml.safe_dump(configuration)
    assert "/data/descriptor.binpb" in text
    assert "/etc/loremesh" not in text


def test_what_is_dumped_has_no_yaml_aliases_which_envoy_would_refuse(configuration: dict[str, Any]) -> None:
    assert "&id" not in yaml.safe_dump(configuration)
