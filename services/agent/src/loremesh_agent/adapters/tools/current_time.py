"""What time it is."""

import asyncio
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from loremesh_kit.clock import Clock

from loremesh_agent.domain.tools import CallContext, Effect, ToolResult, ToolSpec
from loremesh_agent.errors import ToolFailed

NAME = "current_time"
_OFFSET = re.compile(r"(?:UTC|GMT)?([+-])(\d{1,2})(?::?([0-5]\d))?")
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

_SPEC = ToolSpec(
    name=NAME,
    description=(
        "Tells the current date, weekday and time in a time zone. Use it whenever the answer depends on today, now, "
        "or how long ago something was: you do not know the date yourself."
    ),
    input_schema={
        "type": "object",
        "properties": {
            "time_zone": {
                "type": "string",
                "description": "IANA name such as Asia/Bangkok, or an offset such as +07:00; UTC if left out",
                "minLength": 1,
                "maxLength": 64,
            }
        },
        "additionalProperties": False,
    },
    effect=Effect.READ_ONLY,
    untrusted=False,
    timeout_seconds=5.0,
)


class CurrentTime:
    """See ports.Tool."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock

    @property
    def spec(self) -> ToolSpec:
        """See ports.Tool."""
        return _SPEC

    async def call(self, arguments: Mapping[str, Any], context: CallContext) -> ToolResult:
        """See ports.Tool."""
        del context
        name = arguments.get("time_zone", "UTC").strip()
        zone = _fixed(name) or await asyncio.to_thread(_zone, name)
        if zone is None:
            raise ToolFailed(await asyncio.to_thread(_unknown, name), tool=NAME)
        return ToolResult(content=_told(self._clock.now().astimezone(zone), name))


def _told(now: datetime, zone: str) -> str:
    return f"{_WEEKDAYS[now.weekday()]}, {now.isoformat(timespec='seconds')} ({zone})"


def _fixed(name: str) -> tzinfo | None:
    """UTC and offsets from it, for which no database is needed."""
    if name.upper() in ("UTC", "Z", "GMT", "ETC/UTC"):
        return UTC
    match = _OFFSET.fullmatch(name)
    if match is None or int(match[2]) > 14:  # noqa: PLR2004 - no place is further from Greenwich
        return None
    offset = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    return timezone(offset if match[1] == "+" else -offset)


def _zone(name: str) -> tzinfo | None:
    # It reads files, and refuses paths out of its directory.
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


def _unknown(name: str) -> str:
    if _zone("Europe/London") is None:
        return "There is no database of time zones here: ask for UTC or an offset such as +07:00."
    return f"There is no time zone {name!r}: use an IANA name such as Europe/London."
