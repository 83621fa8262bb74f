"""The parser port on child processes: warm, reused, limited, and replaced at the first sign of trouble."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from loremesh_ingestion import errors
from loremesh_ingestion.adapters.parser_process import ParserProcess
from loremesh_ingestion.domain.chunking import ChunkingStrategy
from loremesh_ingestion.parsing import result
from loremesh_ingestion.parsing.result import Parsed

_log = structlog.get_logger(__name__)

_DOCUMENTS_PER_PROCESS = 1000  # libraries leak, and a fresh process forgets what a hostile file has done to the old one
_UNREADABLE: dict[str, type[errors.DocumentUnreadable]] = {
    error.reason: error
    for error in (
        errors.DocumentEmpty,
        errors.UnsupportedMediaType,
        errors.EncodingUnknown,
        errors.PasswordProtected,
        errors.DocumentCorrupt,
        errors.ParseLimit,
    )
}


class ProcessParser:
    """Reads and cuts documents in up to `workers` child processes, started when first needed.

    Each process may take `memory_bytes` of address space, each document `cpu_seconds` of processor time and
    `wall_seconds` in all. Parsing in its own process keeps the event loop free and a hostile file away from
    the service's memory, secrets and network.
    """

    def __init__(self, *, workers: int, memory_bytes: int, cpu_seconds: int, wall_seconds: float) -> None:
        self._memory_bytes = memory_bytes
        self._cpu_seconds = cpu_seconds
        self._wall_seconds = wall_seconds
        self._slots = asyncio.Semaphore(workers)
        self._idle: list[ParserProcess] = []

    async def parse_and_chunk(
        self,
        path: Path,
        *,
        filename: str,
        declared_media_type: str,
        strategy: ChunkingStrategy,
        directory: Path,
    ) -> Parsed:
        """Read the file at `path` and write its text and chunks into `directory`, which the caller owns and removes.

        `filename` and `declared_media_type` are hints and may be empty or lie: the content decides. Raises a
        DocumentUnreadable for what the document is to blame, ParserCrashed for what it may not be.
        """
        request = {
            "path": str(path),
            "filename": filename,
            "declared_media_type": declared_media_type,
            "strategy": [strategy.kind, strategy.max_tokens, strategy.overlap_tokens],
            "directory": str(directory),
            "cpu_seconds": self._cpu_seconds,
        }
        async with self._slots:
            reply = await self._ask(request)
        return _outcome(reply, directory)

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = await self._process()
        healthy = False
        try:
            reply = await process.request(request, seconds=self._wall_seconds)
            healthy = not reply.get("spent") and process.served < _DOCUMENTS_PER_PROCESS
        finally:
            if healthy:
                self._idle.append(process)
            else:
                await process.end()
        return reply

    async def _process(self) -> ParserProcess:
        while self._idle:
            process = self._idle.pop()
            if process.alive:
                return process
            await process.end()
        return await ParserProcess.start(memory_bytes=self._memory_bytes)

    async def close(self) -> None:
        """End the idle processes; call it when nothing is being parsed any more."""
        while self._idle:
            await self._idle.pop().end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _outcome(reply: dict[str, Any], directory: Path) -> Parsed:
    """Return the result; whatever a broken or captured process may have said instead is a crash."""
    try:
        if "error" in reply:
            if reply["cause"]:
                _log.info("document unreadable", reason=reply["error"]["reason"], cause=reply["cause"])
            raise _error(reply["error"])
        return result.read(reply["result"], directory)
    except (KeyError, TypeError, ValueError) as error:
        raise errors.ParserCrashed from error


def _error(fields: dict[str, Any]) -> errors.DocumentUnreadable | errors.ParserCrashed:
    kind = _UNREADABLE.get(fields["reason"])
    return errors.ParserCrashed() if kind is None else kind.restored(fields["message"], fields["metadata"])
