"""What clients were told, in the order they were told it: the one witness against the stores."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self


class Outcome(StrEnum):
    """How a call ended, as its caller saw it."""

    OK = "ok"
    REFUSED = "refused"
    CUT = "cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One call; times are of this machine's monotonic clock. A caller that was cut knows nothing of the effect.

    `hits` of a search are (document, version, generation, edition), `events` of a stream (seq, kind), in the order they
    came in; `text` is what a chat said, or the SHA-256 of what was uploaded.
    """

    call: str
    outcome: Outcome
    sent: float
    at: float
    key: str = ""
    document_id: str = ""
    version: int = 0
    reason: str = ""
    text: str = ""
    hits: Sequence[Sequence[Any]] = field(default_factory=list)
    events: Sequence[Sequence[Any]] = field(default_factory=list)


class Ledger:
    """An append-only file of entries; one that tells of an effect is on the disk before its client goes on."""

    def __init__(self, path: Path | None = None) -> None:
        """Without a path it is kept in memory."""
        self.entries: list[Entry] = []
        self._file = None if path is None else path.open("a")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, entry: Entry) -> None:
        """Keep one entry."""
        self.entries.append(entry)
        if self._file is not None:
            self._file.write(json.dumps(asdict(entry)) + "\n")
            self._file.flush()
            if entry.outcome is Outcome.OK and not entry.hits:
                os.fsync(self._file.fileno())

    def note(self, call: str, outcome: Outcome, *, sent: float, **facts: Any) -> None:
        """Keep an entry that ends now."""
        self.write(Entry(call=call, outcome=outcome, sent=sent, at=time.monotonic(), **facts))

    def acknowledged(self, call: str) -> list[Entry]:
        """The OKs of one kind of call."""
        return [entry for entry in self.entries if entry.call == call and entry.outcome is Outcome.OK]


def read(path: Path) -> list[Entry]:
    """The entries of a ledger's file."""
    return [_entry(json.loads(line)) for line in path.read_text().splitlines()]


def _entry(values: Mapping[str, Any]) -> Entry:
    known = {each.name for each in fields(Entry)}
    given = {name: value for name, value in values.items() if name in known}
    return Entry(**given | {"outcome": Outcome(values["outcome"])})
