"""Messages and enums as JSON Schema, in the form in which the gateway reads and prints them."""

from collections.abc import Collection
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from loremesh_edge.openapi import rules
from loremesh_edge.openapi.index import Index, Message
from loremesh_edge.openapi.rules import Schema

_F = FieldDescriptorProto
_LONG: Schema = {"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"}  # JSON's numbers are too short
_UNSIGNED: Schema = {"type": "string", "format": "int64", "pattern": "^[0-9]{1,18}$"}
_NUMBER: Schema = {"type": "number"}
_INTEGER: Schema = {"type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1}
_SCALARS: dict[int, Schema] = {
    _F.TYPE_STRING: {"type": "string"},
    _F.TYPE_BOOL: {"type": "boolean"},
    _F.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    _F.TYPE_INT32: _INTEGER,
    _F.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    _F.TYPE_FLOAT: _NUMBER,
    _F.TYPE_DOUBLE: _NUMBER,
}
_WELL_KNOWN: dict[str, Schema] = {
    ".google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    ".google.protobuf.Duration": {"type": "string", "pattern": "^-?[0-9]+(\\.[0-9]+)?s$"},
    ".google.protobuf.FieldMask": {"type": "string", "description": "Field names, separated by commas."},
    ".google.protobuf.Struct": {"type": "object"},
    ".google.protobuf.Value": {},
    ".google.api.HttpBody": {"type": "string", "format": "binary"},
}
_OUTPUT_ONLY = "Output only."


class Schemas:
    """Turns types into schemas; those which are referred to gather in `components`."""

    def __init__(self, index: Index) -> None:
        """Nothing is referred to yet."""
        self._index = index
        self.components: dict[str, Schema] = {}

    def message(self, name: str) -> Schema:
        """A reference to the message's schema, or the schema itself for the well-known ones."""
        if name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[name])
        message = self._index.messages[name]
        if message.name not in self.components:
            self.components[message.name] = {}  # messages may contain themselves
            self.components[message.name] = self.properties(message)
        return {"$ref": f"#/components/schemas/{message.name}"}

    def properties(self, message: Message, *, without: Collection[str] = ()) -> Schema:
        """The schema of a message, some of its fields left out."""
        fields = [(field, comment) for field, comment in message.fields() if field.name not in without]
        schema: Schema = {"type": "object", "description": message.comment}
        schema["properties"] = {field.name: self.field(field, comment) for field, comment in fields}
        if required := [field.name for field, _ in fields if rules.is_required(field)]:
            schema["required"] = required
        return schema | _choice(message)

    def field(self, field: FieldDescriptorProto, comment: str) -> Schema:
        """The schema of one field with its comment."""
        about: Schema = {"description": comment} | ({"readOnly": True} if _OUTPUT_ONLY in comment else {})
        if field.label != _F.LABEL_REPEATED:
            return self._value(field, rules.of(field)) | about
        if (entry := self._index.messages.get(field.type_name)) and entry.proto.options.map_entry:
            return {"type": "object", "additionalProperties": self._value(entry.proto.field[1], None)} | about
        listed = rules.of(field)
        return {"type": "array", "items": self._value(field, listed.repeated.items)} | rules.of_list(listed) | about

    def _value(self, field: FieldDescriptorProto, limits: validate_pb2.FieldRules | None) -> Schema:
        if field.type == _F.TYPE_MESSAGE:
            return self.message(field.type_name)
        if field.type == _F.TYPE_ENUM:
            return self._enum(field.type_name)
        limited = rules.constraints(limits) if limits else {}
        if field.type == _F.TYPE_INT64:  # a string, whose only bound can be its sign
            return _UNSIGNED if limited.get("minimum", -1) >= 0 else _LONG
        return _SCALARS[field.type] | limited

    def _enum(self, name: str) -> Schema:
        key = name[1:]
        if key not in self.components:
            enum = self._index.enums[name]
            values = [value.name for value in enum.proto.value]
            meanings = (f"- `{value}`: {text}" for value, text in zip(values, enum.comments, strict=True))
            description = "\n".join((enum.comment, "", *meanings))
            self.components[key] = {"type": "string", "enum": values, "description": description}
        return {"$ref": f"#/components/schemas/{key}"}


def _choice(message: Message) -> Schema:
    """At most one field of each oneof, or exactly one where a rule says so."""
    choices: list[Any] = []
    for i, oneof in enumerate(message.proto.oneof_decl):
        names = [each.name for each in message.proto.field if each.HasField("oneof_index") and each.oneof_index == i]
        if len(names) > 1:
            one: list[Schema] = [{"required": [name]} for name in names]
            is_required = oneof.options.Extensions[validate_pb2.oneof].required
            choices.append({"oneOf": one if is_required else [*one, {"not": {"anyOf": one}}]})
    return choices[0] if len(choices) == 1 else {"allOf": choices} if choices else {}
