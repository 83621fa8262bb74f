"""The log files of a mesh: kept small, read back, followed."""

import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

LIMIT_BYTES = 20 * 1024 * 1024


def trim(folder: Path) -> None:
    """Move the content of every log which has grown large to `<name>.log.1`; its writer appends to the emptied file."""
    for log in folder.glob("*.log"):
        if log.stat().st_size > LIMIT_BYTES:
            shutil.copyfile(log, log.with_name(f"{log.name}.1"))
            with log.open("r+b") as file:
                file.truncate(0)


def tail(log: Path, *, count: int) -> list[str]:
    """Return the last `count` lines."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 256 * (count + 1) * 4))
        return file.read().decode(errors="replace").splitlines()[-count:]


def follow(logs: Sequence[Path], *, pause: float = 0.2) -> Iterator[tuple[str, str]]:
    """Yield (log's name, line) for whatever is written from now on; never ends by itself."""
    places = {log: log.stat().st_size for log in logs}
    rests = dict.fromkeys(logs, b"")
    while True:
        for log in logs:
            size = log.stat().st_size
            places[log] = places[log] if size >= places[log] else 0
            with log.open("rb") as file:
                file.seek(places[log])
                *lines, rests[log] = (rests[log] + file.read()).split(b"\n")
                places[log] = file.tell()
            yield from ((log.stem, line.decode(errors="replace")) for line in lines)
        time.sleep(pause)
