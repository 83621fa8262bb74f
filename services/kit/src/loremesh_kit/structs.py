"""google.protobuf.Struct as plain Python."""

from typing import Any

from google.protobuf.struct_pb2 import Struct, Value


def plain(struct: Struct) -> dict[str, Any]:
    """Strings, doubles, booleans, None, lists and dictionaries, non-finite numbers included."""
    return {key: _plain(value) for key, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    kind = value.WhichOneof("kind")
    match kind:
        case None | "null_value":
            return None
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [_plain(element) for element in value.list_value.values]
    return getattr(value, kind)
