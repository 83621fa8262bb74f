"""Enforces the rules written in the proto before a handler sees the message."""

import re
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

import protovalidate
from google.protobuf.message import Message

from loremesh_kit.errors import FieldViolation, InvalidField, ValidationFailed
from loremesh_kit.interceptors.chain import Call, Proceed

_REASON = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")


class ValidationInterceptor:
    """Checks each request; of a client's stream the first message, and the others where it is told to."""

    def __init__(self, *, every_message: Collection[str] = ()) -> None:
        """`every_message` are full names of client-streaming methods all of whose messages must be complete."""
        self._every_message = frozenset(every_message)

    async def __call__(self, call: Call, proceed: Proceed) -> Any:
        """Run the call on a valid request; raises ValidationFailed, for a stream when the message is read."""
        if isinstance(call.request, Message):
            check(call.request)
        else:
            call.request = _checked(call.request, every=call.method in self._every_message)
        return await proceed()


async def _checked(messages: AsyncIterator[Message], *, every: bool) -> AsyncIterator[Message]:
    first = True
    async for message in messages:
        if first or every:
            check(message)
        first = False
        yield message


def check(message: Message) -> None:
    """Raise ValidationFailed, naming every broken field, unless `message` keeps its proto's rules.

    A rule whose id is UPPER_SNAKE is itself the public reason; any other is INVALID_FIELD.
    """
    if violations := protovalidate.collect_violations(message):
        raise ValidationFailed([_violation(violation.proto) for violation in violations])


def _violation(proto: Any) -> FieldViolation:
    rule = proto.rule_id or ""
    return FieldViolation(
        field=_path(proto.field.elements if proto.field else ()),
        description=proto.message or f"breaks the rule {rule}",
        reason=rule if _REASON.fullmatch(rule) else InvalidField.reason,
    )


def _path(elements: Iterable[Any]) -> str:
    return ".".join(f"{element.field_name}{_subscript(element)}" for element in elements)


def _subscript(element: Any) -> str:
    return f"[{element.subscript.value}]" if element.subscript else ""
