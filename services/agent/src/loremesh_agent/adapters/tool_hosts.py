"""Which addresses of tool servers may be called."""

import asyncio
import socket
from dataclasses import dataclass
from ipaddress import ip_address

from loremesh_agent.domain.addresses import is_public
from loremesh_agent.errors import AddressForbidden, ToolServerInvalid

_RESOLVE_SECONDS = 5.0
_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class ToolHosts:
    """The operator's list: what stands on it is called wherever it is; of the rest only public addresses, with TLS.

    Entries are `host:port` or `host:*`.
    """

    listed: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def parse(cls, text: str) -> "ToolHosts":
        """From a list with commas; raises ValueError."""
        entries = [each.strip() for each in text.split(",") if each.strip()]
        return cls(frozenset(map(_entry, entries)))

    def lists(self, host: str, port: int) -> bool:
        """Whether the operator trusts it."""
        name = host.lower()
        return (name, str(port)) in self.listed or (name, "*") in self.listed

    async def resolve(self, host: str, port: int) -> list[str]:
        """Addresses to connect to, of one family, to be called for each connection and used as they are.

        Raises AddressForbidden where one of them is not public and the operator does not list the host;
        ToolServerInvalid where the host has no address.
        """
        try:
            async with asyncio.timeout(_RESOLVE_SECONDS):
                loop = asyncio.get_running_loop()
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise ToolServerInvalid("The host has no address.", field="tool_server.address") from error
        addresses = [str(each[4][0]) for each in found]
        if not self.lists(host, port) and not all(is_public(ip_address(each)) for each in addresses):
            raise AddressForbidden(host)
        return [str(each[4][0]) for each in found if each[0] == found[0][0]]


def is_port(text: str) -> bool:
    """Whether it is the number of a port."""
    return text.isascii() and text.isdigit() and 0 < int(text) <= _LAST_PORT


def _entry(text: str) -> tuple[str, str]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not (port == "*" or is_port(port)):
        message = f"{text!r} is neither host:port nor host:*"
        raise ValueError(message)
    return host.strip("[]").lower(), port
