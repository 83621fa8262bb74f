"""Every rpc that is public is routed to its service, over REST and gRPC, and nothing else is."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet, MethodDescriptorProto

pytestmark = pytest.mark.contract

VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
TRANSCODER = "envoy.filters.http.grpc_json_transcoder"
ELSEWHERE = "/api/v1/nothing"


@dataclass(frozen=True)
class Rule:
    """One way to call an rpc over REST; `path` is one that its template matches."""

    cluster: str
    method: MethodDescriptorProto
    verb: str
    path: str


@pytest.fixture(scope="module")
def connection_manager(repository: Path) -> Any:
    configuration = yaml.safe_load((repository / "gateway" / "envoy.yaml").read_text())
    (listener,) = configuration["static_resources"]["listeners"]
    return listener["filter_chains"][0]["filters"][0]["typed_config"]


@pytest.fixture(scope="module")
def routes(connection_manager: Any) -> list[Any]:
    return connection_manager["route_config"]["virtual_hosts"][0]["routes"]


@pytest.fixture(scope="module")
def rules(descriptors: FileDescriptorSet) -> list[Rule]:
    return [
        Rule(file.package.split(".")[1], method, verb.upper(), re.sub(r"\{[^}]+\}", "0198-id", getattr(each, verb)))
        for file in descriptors.file
        for service in file.service
        for method in service.method
        for rule in [method.options.Extensions[annotations_pb2.http]]
        for each in (rule, *rule.additional_bindings)
        for verb in [each.WhichOneof("pattern")]
        if verb
    ]


def is_match(rule: dict[str, Any], text: str | None) -> bool:
    """Whether Envoy's string matcher, or its path specifier, takes the text."""
    if text is None:
        return False
    match rule:
        case {"exact": value} | {"path": value}:
            return text == value
        case {"prefix": value}:
            return text.startswith(value)
        case {"path_separated_prefix": value}:
            return text == value or text.startswith(f"{value}/")
        case {"safe_regex": {"regex": value}}:
            return re.fullmatch(value, text) is not None
    raise AssertionError(f"the test does not know the matcher {rule}")


def route_of(routes: list[Any], verb: str, path: str, **headers: str) -> dict[str, Any]:
    """The first route that matches, as Envoy chooses."""
    values = {":method": verb, ":path": path} | headers
    for route in routes:
        matcher = dict(route["match"])
        wanted = matcher.pop("headers", [])
        if is_match(matcher, path) and all(is_header_match(header, values) for header in wanted):
            return route
    raise AssertionError("no route matches")


def is_header_match(header: dict[str, Any], values: dict[str, str]) -> bool:
    value = values.get(header["name"])
    if "present_match" in header:
        return (value is not None) == header["present_match"]
    return value is not None and is_match(header["string_match"], value) != header.get("invert_match", False)


def destination(route: dict[str, Any]) -> str | int:
    """The cluster it leads to, or the status it answers itself."""
    return route["route"]["cluster"] if "route" in route else route["direct_response"]["status"]


def filters(route: dict[str, Any]) -> dict[str, Any]:
    return route.get("typed_per_filter_config", {})


def grpc_methods(descriptors: FileDescriptorSet) -> Iterator[tuple[str, str, bool]]:
    """Path, service's cluster, and whether it is public, of each rpc: what has no rule is for the mesh alone."""
    for file in descriptors.file:
        for service in file.service:
            for method in service.method:
                is_public = method.options.HasExtension(annotations_pb2.http)
                yield f"/{file.package}.{service.name}/{method.name}", file.package.split(".")[1], is_public


def test_every_http_rule_leads_to_its_service(routes: list[Any], rules: list[Rule]) -> None:
    assert len(rules) > 20
    wrong = [
        (rule.verb, rule.path, reached)
        for rule in rules
        if (reached := destination(route_of(routes, rule.verb, rule.path))) != rule.cluster
    ]
    assert wrong == []


def test_every_other_method_of_a_path_is_refused_with_those_it_has(routes: list[Any], rules: list[Rule]) -> None:
    for path in {rule.path for rule in rules}:
        verbs = {rule.verb for rule in rules if rule.path == path}
        # `documents/search` and `documents/list` look like ids, but are none.
        for verb in set(VERBS) - verbs:
            route = route_of(routes, verb, path)
            assert destination(route) == 405, (verb, path)
            assert set(route["response_headers_to_add"][0]["header"]["value"].split(", ")) == verbs, path


def test_every_public_rpc_is_reached_by_grpc_and_no_other_is(routes: list[Any], descriptors: FileDescriptorSet) -> None:
    methods = list(grpc_methods(descriptors))
    assert {is_public for path, _, is_public in methods if ".TaskService/" in path} == {False}
    wrong = [
        path
        for path, cluster, is_public in methods
        if destination(route_of(routes, "POST", path)) != (cluster if is_public else 404)
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "service",
    ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "grpc.health.v1.Health"],
)
def test_reflection_and_health_are_answered_by_edge(routes: list[Any], service: str) -> None:
    assert destination(route_of(routes, "POST", f"/{service}/Any")) == "edge"


def test_the_transcoder_knows_exactly_the_public_services(
    connection_manager: Any, descriptors: FileDescriptorSet
) -> None:
    public = {path[1:].split("/")[0] for path, _, is_public in grpc_methods(descriptors) if is_public}
    configured = [each["typed_config"] for each in connection_manager["http_filters"] if each["name"] == TRANSCODER]
    assert [set(each["services"]) for each in configured] == [public]


def test_event_streams_are_sent_as_events_without_a_time_limit(routes: list[Any], rules: list[Rule]) -> None:
    streams = [rule for rule in rules if rule.method.server_streaming and "HttpBody" not in rule.method.output_type]
    assert streams
    for rule in rules:
        route = route_of(routes, rule.verb, rule.path)
        options = filters(route).get(TRANSCODER, {}).get("print_options", {})
        assert options.get("stream_sse_style_delimited", False) == (rule in streams), rule.path
        assert (route["route"]["timeout"] == "0s") == rule.method.server_streaming, rule.path


@pytest.mark.parametrize("path", ["/api/v1/chat/ws", "/api/v1/runs/0198-id/ws"])
def test_websockets_are_carried_to_their_bridge_unread_and_have_no_other_method(routes: list[Any], path: str) -> None:
    route = route_of(routes, "GET", path)
    assert destination(route) == "edge-websocket"
    assert route["route"]["upgrade_configs"] == [{"upgrade_type": "websocket"}]
    assert filters(route)[TRANSCODER]["disabled"]
    assert {destination(route_of(routes, verb, path)) for verb in set(VERBS) - {"GET"}} == {405}


def test_a_stream_is_transcoded_like_everything_else_but_for_its_events(
    connection_manager: Any, routes: list[Any]
) -> None:
    (everywhere,) = (each["typed_config"] for each in connection_manager["http_filters"] if each["name"] == TRANSCODER)
    own = filters(route_of(routes, "POST", "/api/v1/chat/stream"))[TRANSCODER]
    assert own["print_options"].pop("stream_sse_style_delimited")
    assert own == everywhere


def test_only_uploads_and_grpc_are_without_the_limit_of_bodies(routes: list[Any], rules: list[Rule]) -> None:
    unlimited = {
        rule.method.name
        for rule in rules
        if "envoy.filters.http.body_size_limit" in filters(route_of(routes, rule.verb, rule.path))
    }
    assert unlimited == {rule.method.name for rule in rules if rule.method.client_streaming} == {"UploadDocument"}


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost.evil.example", "null", "http://xlocalhost"]
)
def test_a_page_of_another_origin_gets_nowhere(routes: list[Any], origin: str) -> None:
    for verb, path in (("GET", "/api/v1/documents"), ("POST", "/loremesh.agent.v1.ChatService/Chat"), ("OPTIONS", "/")):
        assert destination(route_of(routes, verb, path, origin=origin)) == 403


@pytest.mark.parametrize(
    "origin", ["http://localhost", "http://localhost:3000", "https://127.0.0.1:8443", "http://[::1]:1"]
)
def test_a_page_of_this_machine_may_call(routes: list[Any], origin: str) -> None:
    assert destination(route_of(routes, "GET", "/api/v1/documents", origin=origin)) == "ingestion"
    preflight = {"origin": origin, "access-control-request-method": "DELETE"}
    # The CORS filter answers, and needs a route with a cluster to find its policy.
    assert "route" in route_of(routes, "OPTIONS", "/api/v1/documents/1", **preflight)


@pytest.mark.parametrize("path", [ELSEWHERE, "/", "/loremesh.agent.v1.NoService/Chat", "/api/v1/documentsx"])
def test_what_is_not_named_is_not_routed(routes: list[Any], path: str) -> None:
    assert destination(route_of(routes, "GET", path)) == 404


def test_health_is_answered_by_the_door_itself(routes: list[Any]) -> None:
    assert [destination(route_of(routes, verb, "/health")) for verb in ("GET", "HEAD", "POST")] == [200, 200, 405]
