"""Logs: kept small, read back, followed over a trim."""

from pathlib import Path

import pytest
from loremesh_cli.mesh import logfiles

pytestmark = pytest.mark.unit


def test_a_log_that_grew_large_is_moved_aside_and_its_writer_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfiles, "LIMIT_BYTES", 10)
    log = tmp_path / "nats.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"many words\nmore\n")
        logfiles.trim(tmp_path)
        writer.write(b"after\n")
    assert log.read_text() == "after\n"
    assert (tmp_path / "nats.log.1").read_text() == "many words\nmore\n"


def test_the_tail_has_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "nats.log"
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    assert logfiles.tail(log, count=2) == ["line 9998", "line 9999"]
    assert logfiles.tail(log, count=0) == []


def test_following_yields_whole_lines_only_and_survives_a_trim(tmp_path: Path) -> None:
    log = tmp_path / "nats.log"
    log.write_text("before\n")
    turns = iter([lambda: log.open("a"), lambda: log.open("a"), lambda: log.open("w")])
    words = iter(["one\ntw", "o\n", "new\n"])

    def write_then_stop() -> bool:
        turn = next(turns, None)
        if turn is not None:
            with turn() as writer:
                writer.write(next(words))
        return turn is None

    assert list(logfiles.follow([log], until=write_then_stop, pause=0)) == [
        ("nats", "one"),
        ("nats", "two"),
        ("nats", "new"),
    ]
