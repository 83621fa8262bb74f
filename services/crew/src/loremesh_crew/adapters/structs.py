"""Protobuf's well-known types, and enums, as plain Python and back."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from loremesh_kit.text import clean


def plain(proto: Struct) -> dict[str, Any]:
    """A JSON object as plain values, whole numbers written as such: protobuf's JSON knows doubles only."""
    return {clean(key): plain_value(value) for key, value in proto.fields.items()}


def plain_value(proto: Value) -> Any:
    """The same of any JSON value."""
    match kind := proto.WhichOneof("kind"):
        case None | "null_value":
            return None
        case "struct_value":
            return plain(proto.struct_value)
        case "list_value":
            return [plain_value(each) for each in proto.list_value.values]
        case "string_value":
            return clean(proto.string_value)
        case "number_value" if proto.number_value.is_integer():
            return int(proto.number_value)
    return getattr(proto, kind)


def struct(value: Mapping[str, Any] | None) -> Struct | None:
    """A JSON object; None where there is none."""
    if value is None:
        return None
    proto = Struct()
    proto.update(value)
    return proto


def timestamp(time: datetime | None) -> Timestamp | None:
    """An instant; None where there is none."""
    if time is None:
        return None
    proto = Timestamp()
    proto.FromDatetime(time)
    return proto


def duration(seconds: float | None) -> Duration | None:
    """A length of time; None where there is none."""
    if seconds is None:
        return None
    proto = Duration()
    proto.FromTimedelta(timedelta(seconds=seconds))
    return proto


def seconds(proto: Duration) -> float:
    """A length of time."""
    return proto.ToTimedelta().total_seconds()


def enum_name(enum: Any, value: int) -> str:
    """The value's name without the enum's, which ends in a word of its own; empty where it is unspecified."""
    if not value:
        return ""
    prefix: str = enum.Name(0).removesuffix("UNSPECIFIED")
    name: str = enum.Name(value)
    return name.removeprefix(prefix)
