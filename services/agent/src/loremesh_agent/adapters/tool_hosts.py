"""Which addresses of tool servers may be called."""

import asyncio
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from loremesh_agent.errors import AddressForbidden, ToolServerInvalid

_RESOLVE_SECONDS = 5.0
_LAST_PORT = 65_535
# Everything else is local, reserved, or an IPv4 address in other clothes.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# A cloud's own, and the way from IPv4 to IPv6 and back.
_INNER = (IPv4Network("168.63.129.16/32"), IPv4Network("192.88.99.0/24"))
_DISGUISES = (IPv6Network("2002::/16"), IPv6Network("2001::/23"))


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
        if not self.lists(host, port) and not all(map(is_public, addresses)):
            raise AddressForbidden(host)
        return [str(each[4][0]) for each in found if each[0] == found[0][0]]


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet's; nothing that a network might hand to a host of its own."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    if parsed.is_multicast or not parsed.is_global:
        return False
    match parsed:
        case IPv4Address():
            return not any(parsed in each for each in _INNER)
        case IPv6Address():
            return parsed in _GLOBAL_UNICAST and not any(parsed in each for each in _DISGUISES)


def is_port(text: str) -> bool:
    """Whether it is the number of a port."""
    return text.isascii() and text.isdigit() and 0 < int(text) <= _LAST_PORT


def _entry(text: str) -> tuple[str, str]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not (port == "*" or is_port(port)):
        message = f"{text!r} is neither host:port nor host:*"
        raise ValueError(message)
    return host.strip("[]").lower(), port
