"""A client of the mesh's front door, over gRPC."""

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from loremesh.agent.v1.agent_pb2_grpc import AgentServiceStub
from loremesh.agent.v1.approval_pb2_grpc import ApprovalServiceStub
from loremesh.agent.v1.chat_job_pb2_grpc import ChatJobServiceStub
from loremesh.agent.v1.chat_pb2_grpc import ChatServiceStub
from loremesh.agent.v1.memory_pb2_grpc import MemoryServiceStub
from loremesh.crew.v1.crew_pb2_grpc import CrewServiceStub
from loremesh.crew.v1.flow_pb2_grpc import FlowServiceStub
from loremesh.crew.v1.run_pb2_grpc import RunServiceStub
from loremesh.ingestion.v1.document_pb2_grpc import DocumentServiceStub
from loremesh.ingestion.v1.job_pb2_grpc import JobServiceStub
from loremesh.retrieval.v1.retrieval_pb2_grpc import RetrievalServiceStub

from loremesh_cli.errors import CommandError, MeshUnreachableError

UNARY_SECONDS = 60.0
CHAT_SECONDS = 600.0
DETAILS = "grpc-status-details-bin"
OPTIONS = (
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mesh:
    """Stubs of the services behind one front door."""

    url: str
    documents: DocumentServiceStub
    jobs: JobServiceStub
    retrieval: RetrievalServiceStub
    agents: AgentServiceStub
    chat: ChatServiceStub
    chat_jobs: ChatJobServiceStub
    memories: MemoryServiceStub
    approvals: ApprovalServiceStub
    crews: CrewServiceStub
    flows: FlowServiceStub
    runs: RunServiceStub


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[Mesh]:
    """Open a channel to the front door at an http:// or https:// address; nothing is sent yet."""
    parts = urlsplit(url)
    target = parts.netloc if parts.port else f"{parts.netloc}:{443 if parts.scheme == 'https' else 80}"
    channel = (
        grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=OPTIONS)
        if parts.scheme == "https"
        else grpc.aio.insecure_channel(target, options=OPTIONS)
    )
    async with channel:
        yield Mesh(
            url=url,
            documents=DocumentServiceStub(channel),
            jobs=JobServiceStub(channel),
            retrieval=RetrievalServiceStub(channel),
            agents=AgentServiceStub(channel),
            chat=ChatServiceStub(channel),
            chat_jobs=ChatJobServiceStub(channel),
            memories=MemoryServiceStub(channel),
            approvals=ApprovalServiceStub(channel),
            crews=CrewServiceStub(channel),
            flows=FlowServiceStub(channel),
            runs=RunServiceStub(channel),
        )


def run(work: Coroutine[Any, Any, T], *, url: str) -> T:
    """Run a command's work to its end; what the mesh refuses is raised as CommandError."""
    with explained(url):
        return asyncio.run(_woken_by_signals(work))


async def _woken_by_signals(work: Coroutine[Any, Any, T]) -> T:
    """Without a handler of the loop's own, a Ctrl-C just before the loop sleeps is noticed only at the next event."""
    if threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGWINCH, lambda: None)
    return await work


def call(work: Callable[[Mesh], Awaitable[T]], *, url: str) -> T:
    """Run a command's work with a mesh of its own; raises as `run` does."""

    async def connected() -> T:
        async with connect(url) as mesh:
            return await work(mesh)

    return run(connected(), url=url)


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Turn a failed call, alone or first in a group of failures, into the CommandError a person can use."""
    try:
        yield
    except (grpc.aio.AioRpcError, ExceptionGroup) as raised:
        error = _first(raised)
        if isinstance(error, grpc.aio.AioRpcError):
            raise as_command_error(error, url=url) from raised
        raise error from raised


def _first(error: Exception) -> Exception:
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


def as_command_error(error: grpc.aio.AioRpcError, *, url: str) -> CommandError:
    """Return the refusal in words: reason, message and the fields at fault."""
    info, violations = details(error)
    if info is None and error.code() is grpc.StatusCode.UNAVAILABLE:
        return MeshUnreachableError(
            f"no mesh answers at {url}: start one with scripts/up, or name another with --url", reason="UNREACHABLE"
        )
    reason = info.reason if info else error.code().name
    fields = "".join(f"\n  {each.field}: {_own(each.reason, reason)}{each.description}" for each in violations)
    return CommandError(f"{reason}: {error.details()}{fields}", reason=reason)


def _own(reason: str, whole: str) -> str:
    """A field's reason where it is another than the whole's, and one of the catalogue."""
    return f"{reason}: " if reason.isupper() and reason != whole else ""


def details(error: grpc.aio.AioRpcError) -> tuple[ErrorInfo | None, list[BadRequest.FieldViolation]]:
    """Return what the mesh said about an error beside its code and message."""
    packed = next((value for key, value in error.trailing_metadata() if key == DETAILS), None)
    if not isinstance(packed, bytes):
        return None, []
    found = Status.FromString(packed).details
    info, request = _unpacked(found, ErrorInfo()), _unpacked(found, BadRequest())
    return info, list(request.field_violations) if request else []


def _unpacked(found: Any, message: Any) -> Any:
    packed: AnyMessage | None = next((each for each in found if each.Is(message.DESCRIPTOR)), None)
    return message if packed is not None and packed.Unpack(message) else None
