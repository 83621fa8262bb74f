"""Attributes: what owners attach to documents and stores, and filter by."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from loremesh_kit.text import clean

MAX_KEYS = 64
MAX_KEY_CHARS = 64
MAX_BYTES = 16 * 1024
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def problem(attributes: Mapping[str, object]) -> str | None:
    """What is wrong with them, in words their sender understands; None when nothing is."""
    if len(attributes) > MAX_KEYS:
        return f"There may be at most {MAX_KEYS} attributes."
    for key, value in attributes.items():
        if not 1 <= len(key) <= MAX_KEY_CHARS:
            return f"An attribute's name must have 1 to {MAX_KEY_CHARS} characters."
        if not all(_is_scalar(element) for element in (value if isinstance(value, list) else [value])):
            return f"The attribute {key} must be a string, a finite number, a boolean or a list of them."
    if len(json.dumps(attributes, ensure_ascii=False).encode()) > MAX_BYTES:
        return f"The attributes must take at most {MAX_BYTES // 1024} KiB as JSON."
    return None


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value))


def cleaned(value: Any) -> Any:
    """The same JSON value without NULs and lone surrogates in any of its strings."""
    match value:
        case str():
            return clean(value)
        case Mapping():
            return {clean(key): cleaned(each) for key, each in value.items()}
        case list() | tuple():
            return [cleaned(each) for each in value]
        case _:
            return value


def times(attributes: Mapping[str, Any]) -> dict[str, list[int]]:
    """The attributes' strings that are instants, in microseconds since 1970: what order filters compare."""
    found: dict[str, list[int]] = {}
    for key, value in attributes.items():
        elements: Sequence[Any] = value if isinstance(value, list) else [value]
        instants = [at for element in elements if isinstance(element, str) and (at := instant(element)) is not None]
        if instants:
            found[key] = instants
    return found


def instant(value: str) -> int | None:
    """The time `value` states, as filters read it (UTC where it says nothing), in microseconds since 1970."""
    try:
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)
