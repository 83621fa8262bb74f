"""Attributes in the form in which an index can filter by them.

An engine's own conditions on a payload differ in what they make of booleans, nulls, empty lists, dots in keys and
times. So equality and presence are asked of one keyword field of terms, and order of plain numbers: the meaning of a
filter is decided here, once, and is the same on every engine. One indexed field also serves every attribute.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from loremesh_kit.errors import AttributesInvalid
from loremesh_kit.filters import Attribute, Scalar

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def comparable(attributes: Mapping[str, Any]) -> dict[str, Attribute]:
    """What filters see of attributes: scalars and lists of them; anything deeper is present but equal to nothing."""
    return {key: _comparable(value) for key, value in attributes.items()}


def _comparable(value: Any) -> Attribute:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return ()
    return tuple(element for element in value if isinstance(element, str | int | float))


def check_finite(attributes: Mapping[str, Any], *, field: str) -> None:
    """Raise AttributesInvalid when a number is infinite or not a number, which no index can hold."""
    if any(isinstance(number, float) and not math.isfinite(number) for number in _leaves(attributes)):
        raise AttributesInvalid("Numbers in attributes must be finite.", field=field)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value:
            yield from _leaves(inner)
    else:
        yield value


def presence_term(key: str) -> str:
    """The term of every chunk which has the attribute."""
    return json.dumps([key], ensure_ascii=False)


def value_term(key: str, value: Scalar) -> str:
    """The term of every chunk whose attribute equals the value or is a list which contains it."""
    # Adding zero makes minus zero plain zero.
    canonical = value if isinstance(value, str | bool) else float(value) + 0.0
    return json.dumps([key, canonical], ensure_ascii=False)


def terms(attributes: Mapping[str, Attribute]) -> list[str]:
    """All terms of a chunk with these attributes."""
    found: dict[str, None] = {}
    for key, value in attributes.items():
        if value is not None:
            found[presence_term(key)] = None
            found.update((value_term(key, element), None) for element in _elements(value))
    return list(found)


def numbers(attributes: Mapping[str, Attribute]) -> dict[str, list[float]]:
    """Numbers by attribute; booleans are none."""
    return _by_key(attributes, lambda value: None if isinstance(value, str | bool) else float(value))


def times(attributes: Mapping[str, Attribute]) -> dict[str, list[float]]:
    """RFC 3339 times by attribute, in microseconds since 1970 (exact in a double until the year 2255)."""
    return _by_key(attributes, lambda value: microseconds(value) if isinstance(value, str) else None)


def microseconds(text: str) -> float | None:
    """A time's microseconds since 1970, UTC where it names no zone; None when `text` is no time."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return float((aware - _EPOCH) // _MICROSECOND)


def path_key(key: str) -> str:
    """The attribute's name as a step of a JSON path, where quotes, dots and brackets have other meanings."""
    return f'"{stored_key(key)}"'


def stored_key(key: str) -> str:
    """The name under which `numbers` and `times` keep an attribute."""
    return quote(key, safe=" ").replace(".", "%2E")


def _by_key(attributes: Mapping[str, Attribute], read: Any) -> dict[str, list[float]]:
    found = {
        stored_key(key): [number for element in _elements(value) if (number := read(element)) is not None]
        for key, value in attributes.items()
    }
    return {key: values for key, values in found.items() if values}


def _elements(value: Attribute) -> Sequence[Scalar]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str | float | int) else value
