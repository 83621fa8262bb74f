"""Parsing in child processes: reuse, limits, isolation, and what becomes of neighbours when one file misbehaves."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import xlsxwriter
from loremesh_ingestion.adapters.parser import ProcessParser
from loremesh_ingestion.domain.chunking import Chunk, ChunkingStrategy, StrategyKind
from loremesh_ingestion.errors import DocumentCorrupt, DocumentUnreadable, ParseLimit, ParserCrashed
from loremesh_ingestion.parsing.result import Parsed

pytestmark = pytest.mark.conformance

PROSE = "สวัสดีครับ 😀 the wing stalls at high angles of attack. And the pilot feels it.\r\n\r\n"
MEMORY = 1 << 30


class Workbench:
    """A parser with a directory of its own."""

    def __init__(self, parser: ProcessParser, directory: Path) -> None:
        self.parser = parser
        self._directory = directory
        self._count = 0

    async def parse(self, data: bytes, filename: str = "", strategy: ChunkingStrategy | None = None) -> Parsed:
        self._count += 1
        directory = self._directory / str(self._count)
        directory.mkdir()
        path = directory / "source"
        path.write_bytes(data)
        return await self.parser.parse_and_chunk(
            path,
            filename=filename,
            declared_media_type="",
            strategy=strategy or ChunkingStrategy(),
            directory=directory,
        )

    def processes(self) -> list[int]:
        """List the parsing processes which are alive."""
        return [child.pid for child in psutil.Process().children() if is_parser(child)]


def is_parser(process: psutil.Process) -> bool:
    try:
        return "loremesh_ingestion.parsing" in process.cmdline()
    except psutil.Error:  # it is dead, but not yet buried
        return False


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Workbench]:
    async with ProcessParser(workers=1, memory_bytes=MEMORY, cpu_seconds=60, wall_seconds=60) as parser:
        yield Workbench(parser, tmp_path)
    assert not [child for child in psutil.Process().children() if is_parser(child)]


async def chunks_of(parsed: Parsed, size: int = 256) -> list[Chunk]:
    return [chunk async for batch in parsed.batches(size) for chunk in batch]


async def test_text_and_chunks_come_back_exactly(bench: Workbench) -> None:
    parsed = await bench.parse((PROSE * 50).encode(), "a.txt", ChunkingStrategy(StrategyKind.SENTENCES, 64, 20))
    text = await parsed.text()
    assert text == PROSE.replace("\r\n", "\n") * 50
    assert (parsed.media_type, parsed.title, parsed.text_length) == ("text/plain", "", len(text))
    chunks = await chunks_of(parsed, size=7)
    assert len(chunks) == parsed.chunk_count > 10
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.text == text[chunk.start : chunk.end] for chunk in chunks)


async def test_title_pages_and_heading_paths_come_back(bench: Workbench) -> None:
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True})
    for name in ("One", "Two"):
        book.add_worksheet(name).write_row(0, 0, ["a", "b"])
    book.close()
    parsed = await bench.parse(file.getvalue())
    assert [(chunk.page, chunk.heading_path) for chunk in await chunks_of(parsed)] == [(1, ("One",)), (2, ("Two",))]
    assert [page.number for page in parsed.pages] == [1, 2]
    assert (await bench.parse(b"# The title\n\n- one\n- two\n", "a.md")).title == "The title"


async def test_one_process_reads_many_documents(bench: Workbench) -> None:
    assert bench.processes() == []
    await bench.parse(b"first document")
    used = bench.processes()
    for number in range(20):
        await bench.parse(b"document number %d" % number)
    assert bench.processes() == used
    assert len(used) == 1


async def test_an_unreadable_document_says_why_and_costs_no_process(bench: Workbench) -> None:
    await bench.parse(b"first document")
    used = bench.processes()
    with pytest.raises(DocumentCorrupt, match="cut off") as raised:
        await bench.parse(b"%PDF-1.7 and then nothing")
    assert not raised.value.retryable
    assert bench.processes() == used


def sparse_workbook() -> bytes:
    """Return a few kilobytes that describe seventeen thousand million cells."""
    file = io.BytesIO()
    book = xlsxwriter.Workbook(file, {"in_memory": True})
    sheet = book.add_worksheet()
    sheet.write(0, 0, "first")
    sheet.write(1_048_575, 16_383, "last")
    book.close()
    return file.getvalue()


async def limit_of(bench: Workbench, data: bytes, filename: str = "") -> str:
    with pytest.raises(ParseLimit) as raised:
        await bench.parse(data, filename)
    assert not raised.value.retryable
    return raised.value.metadata["limit"]


async def test_a_memory_bomb_meets_its_limit_and_nobody_else_notices(bench: Workbench) -> None:
    assert await limit_of(bench, sparse_workbook()) == "memory"
    assert (await bench.parse(b"next document")).chunk_count == 1


async def test_a_text_beyond_memory_meets_the_limit(tmp_path: Path) -> None:
    async with ProcessParser(workers=1, memory_bytes=300 << 20, cpu_seconds=60, wall_seconds=60) as parser:
        bench = Workbench(parser, tmp_path)
        assert await limit_of(bench, bytes(range(32, 96)) * (1 << 20)) == "memory"
        assert (await bench.parse(b"next document")).chunk_count == 1


async def test_nesting_beyond_the_stack_meets_the_limit(bench: Workbench) -> None:
    assert await limit_of(bench, b"[" * 100_000 + b"]" * 100_000, "a.json") == "depth"


async def test_processor_time_meets_its_limit(tmp_path: Path) -> None:
    async with ProcessParser(workers=1, memory_bytes=MEMORY, cpu_seconds=1, wall_seconds=120) as parser:
        bench = Workbench(parser, tmp_path)
        assert await limit_of(bench, PROSE.encode() * 100_000) == "cpu"
        assert (await bench.parse(b"next document")).chunk_count == 1


async def test_processor_time_is_counted_for_each_document(tmp_path: Path) -> None:
    async with ProcessParser(workers=1, memory_bytes=MEMORY, cpu_seconds=1, wall_seconds=120) as parser:
        bench = Workbench(parser, tmp_path)
        await bench.parse(b"warm")
        used = bench.processes()
        while sum(psutil.Process(used[0]).cpu_times()[:2]) < 4:
            await bench.parse(PROSE.encode() * 3_000)
        assert bench.processes() == used


async def test_the_clock_meets_its_limit(tmp_path: Path) -> None:
    async with ProcessParser(workers=1, memory_bytes=MEMORY, cpu_seconds=60, wall_seconds=1) as parser:
        bench = Workbench(parser, tmp_path)
        await bench.parse(b"warm")
        assert await limit_of(bench, PROSE.encode() * 100_000) == "time"
        assert (await bench.parse(b"next document")).chunk_count == 1


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - it is about another process
            await asyncio.sleep(0.01)


async def when_busy(bench: Workbench) -> int:
    await until(lambda: bool(bench.processes()))
    process = psutil.Process(bench.processes()[0])
    await until(lambda: sum(process.cpu_times()[:2]) > 1)
    return process.pid


async def test_a_killed_process_is_a_crash_worth_retrying(bench: Workbench) -> None:
    async with asyncio.TaskGroup() as group:
        parsing = group.create_task(crash_of(bench))
        os.kill(await when_busy(bench), signal.SIGKILL)
    assert (await parsing).retryable
    assert (await bench.parse(b"next document")).chunk_count == 1


async def crash_of(bench: Workbench) -> ParserCrashed:
    with pytest.raises(ParserCrashed) as raised:
        await bench.parse(PROSE.encode() * 100_000)
    return raised.value


async def test_a_process_that_died_idle_is_replaced_unnoticed(bench: Workbench) -> None:
    await bench.parse(b"first document")
    os.kill(bench.processes()[0], signal.SIGKILL)
    await until(lambda: not bench.processes())
    await asyncio.sleep(0.1)  # for the event loop to hear of it
    assert (await bench.parse(b"next document")).chunk_count == 1


async def test_a_cancelled_parse_ends_its_process(bench: Workbench) -> None:
    async with asyncio.TaskGroup() as group:
        parsing = group.create_task(bench.parse(PROSE.encode() * 100_000))
        busy = await when_busy(bench)
        parsing.cancel()
    assert busy not in bench.processes()
    assert (await bench.parse(b"next document")).chunk_count == 1


async def test_two_workers_work_at_the_same_time_and_no_third(tmp_path: Path) -> None:
    async with ProcessParser(workers=2, memory_bytes=MEMORY, cpu_seconds=60, wall_seconds=60) as parser:
        bench = Workbench(parser, tmp_path)
        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(bench.parse(PROSE.encode() * 100 * (number + 1)))
        assert len(bench.processes()) == 2


async def test_hostile_neighbours_change_nothing_for_the_rest(tmp_path: Path) -> None:
    async with ProcessParser(workers=2, memory_bytes=MEMORY, cpu_seconds=30, wall_seconds=60) as parser:
        bench = Workbench(parser, tmp_path)

        async def outcome(data: bytes) -> str:
            try:
                return str((await bench.parse(data)).chunk_count)
            except DocumentUnreadable as error:
                return error.reason

        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(outcome(data))
                for data in [b"good", sparse_workbook(), b"good", b"%PDF-", b"good", bytes(9000), b"good", b"", b"good"]
            ]
    reasons = ["PARSE_LIMIT", "DOCUMENT_CORRUPT", "UNSUPPORTED_MEDIA_TYPE", "DOCUMENT_EMPTY"]
    assert [task.result() for task in tasks[::2]] == ["1"] * 5
    assert [task.result() for task in tasks[1::2]] == reasons


async def test_large_documents_leave_the_parent_small(bench: Workbench) -> None:
    source = PROSE.encode() * 20_000
    tracemalloc.start()
    try:
        parsed = await bench.parse(source)
        count = sum([len(batch) async for batch in parsed.batches()])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == parsed.chunk_count > 1_000
    assert parsed.text_path.stat().st_size > 2_000_000
    assert peak < 3_000_000


async def test_the_child_knows_none_of_the_services_secrets(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", "canary")
    await bench.parse(b"first document")
    environment = psutil.Process(bench.processes()[0]).environ()
    assert "S3_SECRET_ACCESS_KEY" not in environment
    assert "canary" not in environment.values()


ESCAPES = {
    "talk": "import socket; socket.socket()",
    "execute": "import subprocess; subprocess.run(['/bin/true'])",
    "signal": "import os; os.kill(os.getppid(), 0)",
    "allocate": "bytearray(2 << 30)",
    "unlimit": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
}


def run(code: str) -> subprocess.CompletedProcess[bytes]:
    code = f"import sys\nfrom loremesh_ingestion.parsing import sandbox\n{code}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, timeout=60)


@pytest.mark.parametrize("escape", ESCAPES)
def test_the_sandbox_lets_nothing_out(escape: str) -> None:
    done = run(f"sandbox.enter(memory_bytes={MEMORY})\nprint('inside')\n{ESCAPES[escape]}\nprint('outside')")
    assert (done.stdout, done.returncode) == (b"inside\n", 1)


@pytest.mark.parametrize("escape", ["talk", "execute", "signal"])
def test_where_the_kernel_filters_nothing_python_does(escape: str) -> None:
    done = run(f"sys.addaudithook(sandbox._refuse)\nprint('inside')\n{ESCAPES[escape]}\nprint('outside')")
    assert (done.stdout, done.returncode) == (b"inside\n", 1)


def test_the_filter_of_system_calls_is_the_one_in_force() -> None:
    done = run(f"sandbox.enter(memory_bytes={MEMORY})\nprint(open('/proc/self/status').read())")
    status = dict(line.split(":", 1) for line in done.stdout.decode().splitlines() if ":" in line)
    assert (status["Seccomp"].strip(), status["NoNewPrivs"].strip()) == ("2", "1")


def test_a_child_whose_parent_is_gone_ends() -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "loremesh_ingestion.parsing", str(MEMORY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        assert child.stdin is not None
        size = int.from_bytes(child.stdout.read(4))
        assert json.loads(child.stdout.read(size)) == {"ready": True}
        child.stdin.close()
        assert child.wait(10) == 0


async def test_small_documents_are_quick(bench: Workbench) -> None:
    await bench.parse(b"warm")
    text = ("The boundary layer on a flat plate is examined at high speed . " * 15).encode()
    child = psutil.Process(bench.processes()[0])

    def used() -> float:
        return time.process_time() + sum(child.cpu_times()[:2])

    started, count = used(), 200
    for _ in range(count):
        await bench.parse(text, "a.txt")
    assert (used() - started) / count < 0.010  # seconds of processor time on both sides; about 0.004 on an idle machine
