"""The log files of a mesh: kept small, read back, followed."""

import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

LIMIT_BYTES = 20 * 1024 * 1024
QUOTED_LINES = 15


def trim(folder: Path) -> None:
    """Move the content of every log which has grown large to `<name>.log.1`; its writer appends to the emptied file."""
    for log in folder.glob("*.log"):
        if log.stat().st_size > LIMIT_BYTES:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            with log.open("r+b") as file:
                file.truncate(0)


def tail(log: Path, *, count: int) -> list[str]:
    """Return the last `count` lines; none where there is no log."""
    if not log.exists():
        return []
    with log.open(errors="replace") as file:
        return [line.rstrip("\n") for line in deque(file, maxlen=count)]


def last_words(log: Path) -> str:
    """Return the end of a log, as an error message quotes it."""
    return "\n".join(tail(log, count=QUOTED_LINES))


def follow(logs: Sequence[Path], *, until: Callable[[], bool], pause: float = 0.2) -> Iterator[tuple[str, str]]:
    """Yield (log's name, line) for whatever is written from now on, as long as `until` says False."""
    places = {log: log.stat().st_size for log in logs}
    rests = dict.fromkeys(logs, b"")
    while not until():
        for log in logs:
            size = log.stat().st_size
            places[log] = places[log] if size >= places[log] else 0
            with log.open("rb") as file:
                file.seek(places[log])
                *lines, rests[log] = (rests[log] + file.read()).split(b"\n")
                places[log] = file.tell()
            yield from ((log.stem, line.decode(errors="replace")) for line in lines)
        time.sleep(pause)
