"""Failures as callers see them: a catalogued reason in a google.rpc.Status, never an exception's own words."""

import asyncio
import importlib
import math
from collections.abc import Iterator, Mapping
from typing import Any

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc import aio
from grpc_status import rpc_status

from loremesh_kit.errors import (
    Code,
    DeadlineExceeded,
    DependencyUnavailable,
    Internal,
    InvalidField,
    ServiceError,
    ValidationFailed,
)
from loremesh_kit.interceptors.chain import Call, Proceed

# Status details travel in trailers, which peers limit to 8 KiB.
_LONGEST_MESSAGE = 900
_MOST_VIOLATIONS = 10
_PREFIX = "ERROR_REASON_"
# The caller's channel, or Envoy, repeats calls that did not reach us. This one did: whoever made it decides, or retries
# multiply from hop to hop. The first says so to gRPC, the second to Envoy.
_NO_RETRY = (("grpc-retry-pushback-ms", "-1"), ("x-envoy-ratelimited", "true"))
_log = structlog.get_logger(__name__)

STATUS_OF: Mapping[Code, grpc.StatusCode] = {code: grpc.StatusCode[code.name] for code in Code}


def catalogue(service: str) -> frozenset[str]:
    """The reasons `service` may give: those common to all and those of its own errors.proto, if it has one."""
    return frozenset({*_reasons("common"), *_reasons(service)})


def _reasons(package: str) -> Iterator[str]:
    try:
        module: Any = importlib.import_module(f"loremesh.{package}.v1.errors_pb2")
    except ModuleNotFoundError:
        return
    yield from (name.removeprefix(_PREFIX) for name in module.ErrorReason.keys())  # noqa: SIM118 - not a dict


class ErrorInterceptor:
    """Turns whatever a handler raises into a status with a public reason."""

    def __init__(self, *, service: str) -> None:
        """`service` names the catalogue and the domain of its reasons."""
        self._domain = f"{service}.loremesh.dev"
        self._catalogue = catalogue(service)

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Run the call; abort it with a status when it fails."""
        try:
            return await proceed()
        except aio.AbortError:
            call.code = call.context.code() or grpc.StatusCode.UNKNOWN
            raise
        except aio.InternalError:
            # A write failed: the caller has left, and gRPC knows.
            call.code = grpc.StatusCode.CANCELLED
            raise
        except asyncio.CancelledError:
            if _cancelled_from_outside():
                call.code = grpc.StatusCode.CANCELLED
                raise
            # Passed on, it would leave a client without deadline waiting for ever.
            _log.exception("a handler cancelled itself", method=call.method)
            error: ServiceError = Internal(request_id=call.request_id)
        except Exception as raised:  # noqa: BLE001 - the outermost edge
            error = self._public(raised, call)
        call.code = STATUS_OF[error.code]
        status = rpc_status.to_status(status_of(error, domain=self._domain))
        await call.context.abort(status.code, status.details, (*status.trailing_metadata, *_NO_RETRY, *_pause(error)))
        return None

    def _public(self, raised: Exception, call: Call) -> ServiceError:
        match raised:
            case ServiceError() if raised.reason in self._catalogue:
                return raised
            case ValidationFailed():
                raised.reason = InvalidField.reason
                return raised
            case aio.AioRpcError() if raised.code() is grpc.StatusCode.UNAVAILABLE:
                return DependencyUnavailable("upstream")
            case aio.AioRpcError() if raised.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                return DeadlineExceeded()
        _log.error("a call failed", method=call.method, exc_info=raised)
        return Internal(request_id=call.request_id)


def status_of(error: ServiceError, *, domain: str) -> status_pb2.Status:
    """What a caller is told of a failure; `domain` is that of its reason."""
    message = error.message[:_LONGEST_MESSAGE]
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code.name), message=message)
    for detail in _details(error, domain=domain):
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _pause(error: ServiceError) -> Iterator[tuple[str, str]]:
    """RetryInfo once more, in whole seconds, as HTTP has it: the gateway makes a header of it."""
    if error.retry_after is not None:
        yield "retry-after", str(math.ceil(error.retry_after))


def _cancelled_from_outside() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _details(error: ServiceError, *, domain: str) -> Iterator[Message]:
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=domain, metadata=dict(error.metadata))
    if error.violations:
        yield error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(
                    field=violation.field,
                    description=violation.description[: _LONGEST_MESSAGE // _MOST_VIOLATIONS * 2],
                    reason=violation.reason,
                )
                for violation in error.violations[:_MOST_VIOLATIONS]
            ],
        )
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after * 1000))
        yield retry
    if error.resource is not None:
        resource_type, name = error.resource
        yield error_details_pb2.ResourceInfo(resource_type=resource_type, resource_name=name, description=error.message)
