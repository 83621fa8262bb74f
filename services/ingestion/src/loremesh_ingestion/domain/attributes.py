"""Attributes: what owners attach to documents and stores, and filter by."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from loremesh_kit.text import clean

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
