"""HTTP to addresses on a stranger's word: connected to is the very address that was checked, each time anew."""

import asyncio
import logging
import socket
import ssl
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpcore2
import httpx2

from loremesh_agent.domain import addresses
from loremesh_agent.domain.addresses import Exemptions, Forbidden, Place
from loremesh_agent.errors import AddressForbidden
from loremesh_agent.ports import Resolver

MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ENCODINGS = frozenset({"gzip", "x-gzip", "deflate"})
# zlib's word for "gzip or zlib, as it comes".
_EITHER = 47
_ADDRESSES_TRIED = 3
_PIECE = 64 * 1024

# They tell what is fetched.
for _name in ("httpcore2", "httpx2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class FetchFailed(Exception):
    """There is no page to be had; says why in our words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caps:
    """What one page may take: bytes as sent, bytes when decompressed, seconds to connect, between bytes, in all."""

    sent: int = 2 * 1024 * 1024
    body: int = 1024 * 1024
    connect_seconds: float = 5.0
    idle_seconds: float = 5.0
    total_seconds: float = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What was fetched, from where in the end; `cut` where there was more of it."""

    url: str
    content_type: str
    body: bytes
    cut: bool = False


class SystemResolver:
    """See ports.Resolver; asks what this machine asks."""

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        """See ports.Resolver."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return []
        return [str(address[0]) for *_, address in found]


class Guard:
    """Says which addresses may be connected to."""

    def __init__(self, *, exempt: Exemptions, resolver: Resolver) -> None:
        self._exempt = exempt
        self._resolver = resolver

    async def addresses(self, host: str, port: int) -> list[str]:
        """The addresses to connect to, not empty; raises AddressForbidden, FetchFailed where the name is not known."""
        try:
            literal = addresses.check(host, port, exempt=self._exempt)
            if literal is not None:
                return [str(literal)]
            found = await self._resolver.addresses(host, port)
            if not found:
                raise FetchFailed("The host is not known.")
            return [str(each) for each in addresses.check_resolved(host, port, found, exempt=self._exempt)]
        except Forbidden:
            raise AddressForbidden(host[:200]) from None


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Resolves, checks and connects in one go, so that a name cannot mean another address the second time."""

    def __init__(self, *, guard: Guard) -> None:
        self._guard = guard
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the base class's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Connect to a checked address of `host`; TLS is then made with the name, by whoever asked for it."""
        failure: Exception = FetchFailed("The host cannot be reached.")
        async with asyncio.timeout(timeout):
            found = await self._guard.addresses(host, port)
        for address in found[:_ADDRESSES_TRIED]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        """Never."""
        raise AddressForbidden("")

    async def sleep(self, seconds: float) -> None:
        """As the pool wants it."""
        await asyncio.sleep(seconds)


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """For clients of others that bring their own protocol: whatever they connect to is checked, redirects included."""

    def __init__(self, *, guard: Guard, ssl_context: ssl.SSLContext) -> None:
        super().__init__(verify=ssl_context, trust_env=False)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=ssl_context, network_backend=GuardedBackend(guard=guard), keepalive_expiry=5.0
        )


class GuardedFetcher:
    """Gets pages: no cookies, no credentials, no proxy, nothing kept from one request to the next."""

    def __init__(self, *, guard: Guard, ssl_context: ssl.SSLContext, caps: Caps) -> None:
        self._backend = GuardedBackend(guard=guard)
        self._ssl_context = ssl_context
        self._caps = caps

    async def fetch(self, url: str, *, accept: str) -> Page:
        """A page, redirects followed; raises AddressForbidden, FetchFailed, TimeoutError."""
        async with asyncio.timeout(self._caps.total_seconds):
            place = _place(url)
            for _ in range(MAX_REDIRECTS + 1):
                async with self._asked(place, accept) as response:
                    following = _redirection(place, response)
                    if following is None:
                        return await self._page(place, response)
                place = following
        raise FetchFailed(f"The page was moved more than {MAX_REDIRECTS} times.")

    @asynccontextmanager
    async def _asked(self, place: Place, accept: str) -> AsyncIterator[httpcore2.Response]:
        caps = self._caps
        timeouts = {
            "connect": caps.connect_seconds,
            "read": caps.idle_seconds,
            "write": caps.idle_seconds,
            "pool": caps.connect_seconds,
        }
        headers: dict[bytes | str, bytes | str] = {
            "host": place.url.split("/")[2],
            "user-agent": "loremesh",
            "accept": accept,
            "accept-encoding": "gzip, deflate",
            "connection": "close",
        }
        try:
            async with (
                httpcore2.AsyncConnectionPool(ssl_context=self._ssl_context, network_backend=self._backend) as pool,
                pool.stream("GET", place.url, headers=headers, extensions={"timeout": timeouts}) as response,
            ):
                yield response
        except (httpcore2.TimeoutException, TimeoutError):
            raise TimeoutError from None
        except (httpcore2.NetworkError, httpcore2.ProtocolError, OSError, UnicodeError):
            raise FetchFailed("The page could not be read from its server.") from None

    async def _page(self, place: Place, response: httpcore2.Response) -> Page:
        if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's successes
            raise FetchFailed(f"The server answered with status {response.status}.")
        body, cut = await self._body(response)
        return Page(url=place.url, content_type=_header(response, b"content-type"), body=body, cut=cut)

    async def _body(self, response: httpcore2.Response) -> tuple[bytes, bool]:
        """What there is of it within the caps, and whether there was more."""
        unpack = _unpacker(_header(response, b"content-encoding"))
        body, sent = bytearray(), 0
        async for piece in response.aiter_stream():
            sent += len(piece)
            for start in range(0, len(piece), _PIECE):
                body += unpack(piece[start : start + _PIECE], self._caps.body + 1 - len(body))
                if len(body) > self._caps.body:
                    return bytes(body[: self._caps.body]), True
            if sent > self._caps.sent:
                return bytes(body), True
        return bytes(body), False


class _Unpacking:
    """Decompresses no more than is wanted."""

    def __init__(self) -> None:
        self._of = zlib.decompressobj(_EITHER)

    def __call__(self, piece: bytes, most: int) -> bytes:
        try:
            return self._of.decompress(self._of.unconsumed_tail + piece, most)
        except zlib.error:
            raise FetchFailed("The page is not compressed as it says.") from None


def _unpacker(encoding: str) -> Any:
    match encoding.strip().lower():
        case "" | "identity":
            return lambda piece, most: piece[:most]
        case name if name in _ENCODINGS:
            return _Unpacking()
    raise FetchFailed("The page is compressed in a way that is not supported.")


def _place(url: str) -> Place:
    try:
        return addresses.place(url)
    except Forbidden as forbidden:
        raise AddressForbidden(str(forbidden)[:200]) from None


def _redirection(place: Place, response: httpcore2.Response) -> Place | None:
    if response.status not in _REDIRECTS:
        return None
    location = _header(response, b"location")
    if not location:
        raise FetchFailed("The page was moved, but nobody said where to.")
    try:
        following = _place(urljoin(place.url, location))
    except ValueError:
        raise FetchFailed("The page was moved to what is no address.") from None
    if place.scheme == "https" and following.scheme == "http":
        raise FetchFailed("The page was moved from https to http.")
    return following


def _header(response: httpcore2.Response, name: bytes) -> str:
    for each, value in response.headers:
        if each.lower() == name:
            return value.decode("utf-8", "replace")
    return ""
