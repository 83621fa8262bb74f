"""The loop of a parsing process: one request, one document, one reply."""

import gc
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, BinaryIO

from loremesh_kit.errors import ServiceError

from loremesh_ingestion.domain.chunking import ChunkingStrategy, StrategyKind, TokenCounter, chunk
from loremesh_ingestion.errors import ParseLimit, ParserCrashed
from loremesh_ingestion.parsing import frames, result, sandbox
from loremesh_ingestion.parsing.extract import extract
from loremesh_ingestion.parsing.tokens import WordPieceCounter

_SPENT = 256 << 20  # bytes; a process that still holds more after a document gives it back by ending


def main(*, memory_bytes: int) -> None:
    """Serve requests from standard input until it ends; replies go to what standard output was at the start."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # a library that prints must not break the frames
    logging.disable()  # libraries would quote the document in what they complain about
    warnings.simplefilter("ignore")
    sandbox.enter(memory_bytes=memory_bytes)
    counter = WordPieceCounter.bundled()
    gc.freeze()
    _send(replies, {"ready": True})
    while (request := frames.read(sys.stdin.buffer)) is not None:
        _send(replies, _reply(request, counter))


def _send(replies: BinaryIO, message: dict[str, Any]) -> None:
    replies.write(frames.encode(message))
    replies.flush()


def _reply(request: dict[str, Any], counter: TokenCounter) -> dict[str, Any]:
    """Return the result or the public error; `spent` asks for a fresh process in place of this one."""
    try:
        parsed = _perform(request, counter)
    except (MemoryError, SystemError):
        # The second is what CPython raises where an allocation failed inside C code that forgot to say so.
        return {**_failure(ParseLimit("memory")), "spent": True}
    except RecursionError:
        return {**_failure(ParseLimit("depth")), "spent": True}
    except ServiceError as error:
        return _failure(error, cause=error.__cause__)
    except Exception as error:  # noqa: BLE001 - the process's outermost edge
        return {**_failure(ParserCrashed(), cause=error), "spent": True}
    return {"result": parsed, "spent": sandbox.resident_bytes() > _SPENT}


def _perform(request: dict[str, Any], counter: TokenCounter) -> dict[str, Any]:
    sandbox.allow_cpu(request["cpu_seconds"])
    document = extract(
        Path(request["path"]),
        filename=request["filename"],
        declared_media_type=request["declared_media_type"],
    )
    kind, max_tokens, overlap_tokens = request["strategy"]
    strategy = ChunkingStrategy(StrategyKind(kind), max_tokens, overlap_tokens)
    return result.write(document, chunk(document, strategy, counter), Path(request["directory"]))


def _failure(error: ServiceError, *, cause: BaseException | None = None) -> dict[str, Any]:
    fields = {"reason": error.reason, "message": error.message, "metadata": dict(error.metadata)}
    return {"error": fields, "cause": _place(cause) if cause else ""}


def _place(error: BaseException) -> str:
    """Return what happened where, but not its message, which may quote the document."""
    places = [f"{Path(at.filename).name}:{at.lineno}" for at in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__} at {' < '.join(reversed(places))}"
