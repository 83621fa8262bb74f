"""What protovalidate's rules say, as JSON Schema."""

import re
from typing import Any

from buf.validate import validate_pb2
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

Schema = dict[str, Any]

_NUMBERS = ("int32", "int64", "uint32", "uint64", "float", "double")
_BOUND = re.compile(r"this (>=|<=) (-?\d+)")
_MATCHES = re.compile(r"this\.matches\('(.*?)'\)")


def of(field: FieldDescriptorProto) -> validate_pb2.FieldRules:
    """The field's rules, empty where it has none."""
    return field.options.Extensions[validate_pb2.field]


def constraints(rules: validate_pb2.FieldRules) -> Schema:
    """Keywords for one value: of the field, or of each item where the field is repeated."""
    result: Schema = {}
    text = rules.string
    _set(result, minLength=text.min_len if text.HasField("min_len") else None)
    _set(result, maxLength=text.max_len if text.HasField("max_len") else None)
    for name in _NUMBERS:
        number = getattr(rules, name)
        _set(result, minimum=number.gte if number.HasField("gte") else None)
        _set(result, maximum=number.lte if number.HasField("lte") else None)
    for rule in rules.cel:
        for operator, bound in _BOUND.findall(rule.expression):
            result["minimum" if operator == ">=" else "maximum"] = int(bound)
        for pattern in _MATCHES.findall(rule.expression):
            empty = "^$|" if "this == ''" in rule.expression else ""
            result["pattern"] = empty + pattern.replace("\\\\", "\\")
    return result


def of_list(rules: validate_pb2.FieldRules) -> Schema:
    """Keywords for a repeated field itself."""
    repeated = rules.repeated
    result: Schema = {"uniqueItems": True} if repeated.unique else {}
    _set(result, minItems=repeated.min_items if repeated.HasField("min_items") else None)
    _set(result, maxItems=repeated.max_items if repeated.HasField("max_items") else None)
    return result


def is_required(field: FieldDescriptorProto) -> bool:
    """Whether a request without the field is refused: said so, or its default breaks its own rule."""
    rules = of(field)
    if rules.required or field.HasField("oneof_index"):
        return rules.required
    pattern = constraints(rules).get("pattern", "")
    return rules.string.min_len > 0 or rules.repeated.min_items > 0 or not re.search(pattern, "")


def _set(schema: Schema, **keywords: float | None) -> None:
    schema |= {name: value for name, value in keywords.items() if value is not None}
