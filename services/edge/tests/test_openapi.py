from typing import Any

import pytest
from buf.validate import validate_pb2
from google.api import annotations_pb2
from google.protobuf import struct_pb2, timestamp_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from loremesh_edge.openapi.__main__ import document

pytestmark = pytest.mark.unit

GET_THING = "/api/v1/things/{thing_id}"


def things() -> FileDescriptorSet:
    """A service which gets, lists and updates things."""
    file = FileDescriptorProto(name="loremesh/thing/v1/thing.proto", package="loremesh.thing.v1")
    thing = file.message_type.add(name="Thing")
    thing.field.add(name="id", type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
    size = thing.field.add(name="size", type=Field.TYPE_INT32, label=Field.LABEL_OPTIONAL)
    size.options.Extensions[validate_pb2.field].int32.gte = 1
    size.options.Extensions[validate_pb2.field].int32.lte = 9
    total = thing.field.add(name="total", type=Field.TYPE_INT64, label=Field.LABEL_OPTIONAL)
    total.options.Extensions[validate_pb2.field].int64.gte = 0
    name = thing.field.add(name="name", type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
    rule = name.options.Extensions[validate_pb2.field].cel.add(expression="this == '' || this.matches('^\\\\d+$')")
    rule.id = "name"
    thing.field.add(
        name="parts", type=Field.TYPE_MESSAGE, type_name=".loremesh.thing.v1.Thing", label=Field.LABEL_REPEATED
    )
    for field, type_name in (("made", ".google.protobuf.Timestamp"), ("attributes", ".google.protobuf.Struct")):
        thing.field.add(name=field, type=Field.TYPE_MESSAGE, type_name=type_name, label=Field.LABEL_OPTIONAL)
    thing.oneof_decl.add(name="colour").options.Extensions[validate_pb2.oneof].required = True
    for colour in ("red", "blue"):
        thing.field.add(name=colour, type=Field.TYPE_BOOL, label=Field.LABEL_OPTIONAL, oneof_index=0)
    for number, field in enumerate(thing.field, start=1):
        field.number = number

    get = file.message_type.add(name="GetThingRequest")
    thing_id = get.field.add(name="thing_id", number=1, type=Field.TYPE_STRING, label=Field.LABEL_OPTIONAL)
    thing_id.options.Extensions[validate_pb2.field].string.min_len = 1
    get.field.add(name="deep", number=2, type=Field.TYPE_BOOL, label=Field.LABEL_OPTIONAL)

    update = file.message_type.add(name="UpdateThingRequest")
    update.field.add(
        name="thing",
        number=1,
        type=Field.TYPE_MESSAGE,
        type_name=".loremesh.thing.v1.Thing",
        label=Field.LABEL_OPTIONAL,
    )
    update.field.add(name="force", number=2, type=Field.TYPE_BOOL, label=Field.LABEL_OPTIONAL)

    service = file.service.add(name="ThingService")
    got = service.method.add(name="GetThing", input_type=".loremesh.thing.v1.GetThingRequest")
    got.output_type = ".loremesh.thing.v1.Thing"
    got.options.Extensions[annotations_pb2.http].get = GET_THING
    watched = service.method.add(name="WatchThing", input_type=".loremesh.thing.v1.GetThingRequest")
    watched.output_type, watched.server_streaming = ".loremesh.thing.v1.Thing", True
    watched.options.Extensions[annotations_pb2.http].get = f"{GET_THING}/events"
    updated = service.method.add(name="UpdateThing", input_type=".loremesh.thing.v1.UpdateThingRequest")
    updated.output_type = ".loremesh.thing.v1.Thing"
    updated.options.Extensions[annotations_pb2.http].patch = "/api/v1/things/{thing.id}"
    updated.options.Extensions[annotations_pb2.http].body = "thing"
    service.method.add(
        name="InternalThing", input_type=".loremesh.thing.v1.Thing", output_type=".loremesh.thing.v1.Thing"
    )

    for path, text in (
        ((4, 0), "A thing."),
        ((4, 0, 2, 1), "How big.\nVery.\n\nOr not."),
        ((6, 0, 2, 0), "Gets it. Now."),
    ):
        file.source_code_info.location.add(path=path, leading_comments=text)
    result = FileDescriptorSet(file=[file])
    for module in (struct_pb2, timestamp_pb2):
        module.DESCRIPTOR.CopyToProto(result.file.add())
    return result


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document(things())


def field(made: dict[str, Any], name: str) -> Any:
    return made["components"]["schemas"]["loremesh.thing.v1.Thing"]["properties"][name]


def test_rules_become_bounds(made: dict[str, Any]) -> None:
    assert (field(made, "size")["minimum"], field(made, "size")["maximum"]) == (1, 9)


def test_a_64_bit_number_is_a_string_without_a_sign_where_it_has_none(made: dict[str, Any]) -> None:
    assert field(made, "total")["type"] == "string"
    assert field(made, "total")["pattern"] == "^[0-9]{1,18}$"


def test_a_match_which_excepts_the_empty_string_keeps_the_exception(made: dict[str, Any]) -> None:
    assert field(made, "name")["pattern"] == r"^$|^\d+$"


def test_comments_become_descriptions_one_line_per_paragraph(made: dict[str, Any]) -> None:
    assert field(made, "size")["description"] == "How big. Very.\n\nOr not."
    assert made["paths"][GET_THING]["get"]["summary"] == "Gets it"


def test_a_message_may_contain_itself(made: dict[str, Any]) -> None:
    assert field(made, "parts")["items"] == {"$ref": "#/components/schemas/loremesh.thing.v1.Thing"}


def test_well_known_types_are_as_json_prints_them(made: dict[str, Any]) -> None:
    assert field(made, "made")["format"] == "date-time"
    assert field(made, "attributes")["type"] == "object"


def test_a_required_oneof_wants_exactly_one(made: dict[str, Any]) -> None:
    schema = made["components"]["schemas"]["loremesh.thing.v1.Thing"]
    assert schema["oneOf"] == [{"required": ["red"]}, {"required": ["blue"]}]


def test_fields_outside_path_and_body_are_query_parameters(made: dict[str, Any]) -> None:
    parameters = {each["name"]: each["in"] for each in made["paths"][GET_THING]["get"]["parameters"]}
    assert parameters == {"thing_id": "path", "deep": "query"}


def test_variables_of_one_path_have_one_name_and_are_not_in_the_body(made: dict[str, Any]) -> None:
    assert set(made["paths"][GET_THING]) == {"get", "patch"}
    patch = made["paths"][GET_THING]["patch"]
    assert [each["name"] for each in patch["parameters"]] == ["thing_id", "force"]
    assert "id" not in patch["requestBody"]["content"]["application/json"]["schema"]["properties"]


def test_a_stream_is_server_sent_events_of_its_message(made: dict[str, Any]) -> None:
    ((kind, content),) = made["paths"][f"{GET_THING}/events"]["get"]["responses"]["200"]["content"].items()
    assert kind == "text/event-stream"
    assert content["schema"]["properties"]["data"]["contentSchema"] == {
        "$ref": "#/components/schemas/loremesh.thing.v1.Thing"
    }


def test_an_rpc_without_a_rule_has_no_path(made: dict[str, Any]) -> None:
    operations = [op["operationId"] for path in made["paths"].values() for op in path.values()]
    assert sorted(operations) == [
        "Health",
        "ThingService_GetThing",
        "ThingService_UpdateThing",
        "ThingService_WatchThing",
    ]
