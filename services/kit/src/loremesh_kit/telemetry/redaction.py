"""Keeps secrets and people's texts out of logs."""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from pydantic import SecretStr
from pydantic_settings import BaseSettings

REDACTED = "[redacted]"
_SECRET_KEY = re.compile(r"password|passwd|secret|token(?!s)|authorization|api_?key|credential|cookie", re.IGNORECASE)
_URL_PASSWORD = re.compile(r"(://[^/\s:@]*:)[^/\s@]+@")
_SHORTEST_SECRET = 6
_LONGEST_TEXT = 2000


@lru_cache(maxsize=1024)
def names_a_secret(key: str) -> bool:
    """Whether a log key's name says that its value is secret."""
    return _SECRET_KEY.search(key) is not None


def secrets_of(settings: BaseSettings) -> tuple[str, ...]:
    """Every secret value in `settings`, and the passwords inside its URLs."""
    values = [value.get_secret_value() for _, value in settings if isinstance(value, SecretStr)]
    values += [value for _, value in settings if isinstance(value, str) and "://" in value]
    return tuple(_worth_hiding(values))


def _worth_hiding(values: Iterable[str]) -> Iterable[str]:
    for value in values:
        if "://" not in value:
            candidates = [value]
        else:
            password = urlsplit(value).password or ""
            candidates = [password, unquote(password)]
        yield from (candidate for candidate in candidates if len(candidate) >= _SHORTEST_SECRET)


def scrub(line: str, secrets: Iterable[str]) -> str:
    """`line` without the given secrets and without passwords in URLs."""
    for secret in secrets:
        line = line.replace(secret, REDACTED)
    return _URL_PASSWORD.sub(rf"\1{REDACTED}@", line)


def describe(message: Message) -> str:
    """One line of text format, fields marked `debug_redact` and the inside of `Any` left out, at most 2,000 long."""
    bare = type(message)()
    bare.CopyFrom(message)
    _clear_redacted(bare)
    return text_format.MessageToString(bare, as_one_line=True)[:_LONGEST_TEXT]


def _clear_redacted(message: Message) -> None:
    for field, value in message.ListFields():
        kind = field.message_type
        if field.GetOptions().debug_redact or (kind is not None and kind.full_name == "google.protobuf.Any"):
            message.ClearField(field.name)
        elif kind is not None:
            for inner in _inner(kind, value):
                _clear_redacted(inner)


def _inner(kind: Descriptor, value: Any) -> Iterable[Message]:
    if isinstance(value, Message):
        return (value,)
    elements = value.values() if kind.GetOptions().map_entry else value
    return (element for element in elements if isinstance(element, Message))
