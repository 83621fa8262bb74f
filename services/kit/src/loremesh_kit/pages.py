"""Page tokens: where the last page ended, bound to the query they were made for."""

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass

from google.protobuf.message import Message

from loremesh_kit.errors import PageTokenInvalid

_VERSION = 1
_PAGING_FIELDS = ("page_token", "page_size")


@dataclass(frozen=True, slots=True)
class Position:
    """The last row of a page: its sort key and, to break ties, its id."""

    sort_key: str
    id: str


def encode_token(position: Position, *, query: Message) -> str:
    """An opaque base64url token; `query` is the list request, whose paging fields do not count."""
    body = json.dumps([_VERSION, _fingerprint(query), position.sort_key, position.id], separators=(",", ":"))
    return base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")


def decode_token(token: str, *, query: Message) -> Position | None:
    """Where to go on, None for the first page; raises PageTokenInvalid for a damaged or a foreign token."""
    if not token:
        return None
    match _parse(token):
        case [int(version), str(fingerprint), str(sort_key), str(id_)] if version == _VERSION:
            if fingerprint == _fingerprint(query):
                return Position(sort_key=sort_key, id=id_)
    raise PageTokenInvalid


def _parse(token: str) -> object:
    try:
        padded = token.encode("ascii") + b"=" * (-len(token) % 4)
        parsed: object = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return parsed


def _fingerprint(query: Message) -> str:
    bare = type(query)()
    bare.CopyFrom(query)
    for field in _PAGING_FIELDS:
        if field in bare.DESCRIPTOR.fields_by_name:
            bare.ClearField(field)
    canonical = f"{bare.DESCRIPTOR.full_name}\n".encode() + bare.SerializeToString(deterministic=True)
    return hashlib.blake2b(canonical, digest_size=12).hexdigest()
