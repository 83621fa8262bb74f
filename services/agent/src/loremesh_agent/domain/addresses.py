"""Which addresses may be called on a stranger's word: public ones, by their names and by nothing else."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

_PORTS = {"http": 80, "https": 443}
_MAX_URL = 2000

# IANA's special-purpose registry, multicast, what is reserved, and an address within clouds that looks public.
_PRIVATE_4 = tuple(
    IPv4Network(net)
    for net in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
# Of IPv6 only this is given out, with pieces that are not, or which lead to any IPv4 address (Teredo, 6to4).
_GLOBAL_6 = IPv6Network("2000::/3")
_PRIVATE_6 = tuple(IPv6Network(net) for net in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))

# Names that mean this machine, its network or its cloud wherever they are asked.
_LOCAL_NAMES = ("localhost", "localdomain", "local", "internal", "intranet", "lan", "home.arpa", "cluster.local")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")
_CONTROL = re.compile(r"[\x00-\x20\x7f\\]")


class Forbidden(ValueError):
    """The address must not be called; its text is the host, as far as there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What an http or https URL points to: `host` as in a certificate, lower-case; `target` is path and query."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def url(self) -> str:
        """The URL without a fragment."""
        shown = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{shown}{port}{self.target}"


@dataclass(frozen=True, slots=True)
class Exemptions:
    """What an operator lets be called although it is not public: `host`, or `host:port` for another port."""

    entries: frozenset[str] = frozenset()

    def cover(self, host: str, port: int) -> bool:
        """Whether this host and port are among them."""
        shown = f"[{host}]" if ":" in host else host
        return f"{shown}:{port}" in self.entries or (port in _PORTS.values() and bool({host, shown} & self.entries))


def exemptions(entries: Collection[str]) -> Exemptions:
    """Exemptions as a setting names them."""
    return Exemptions(frozenset(entry.strip().lower() for entry in entries if entry.strip()))


def place(url: str) -> Place:
    """Take a URL apart; raises Forbidden for other schemes, names and passwords in it, and what is no URL."""
    if len(url) > _MAX_URL or _CONTROL.search(url):
        raise Forbidden("")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise Forbidden("") from None
    if parts.scheme not in _PORTS or not host:
        raise Forbidden(host)
    if "@" in parts.netloc or "%" in host:
        raise Forbidden(host.rpartition("%")[0])
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Place(
        scheme=parts.scheme,
        host=_name(host),
        port=_PORTS[parts.scheme] if port is None else port,
        target=_ascii(target),
    )


def check(host: str, port: int, *, exempt: Exemptions) -> Address | None:
    """The address where `host` is one in any spelling, None where it is a name to be resolved; raises Forbidden."""
    address = literal(host)
    if exempt.cover(host, port):
        return address
    if port not in _PORTS.values():
        raise Forbidden(host)
    if address is not None:
        if not is_public(address):
            raise Forbidden(host)
        return address
    name = host.rstrip(".")
    if "." not in name or any(name == local or name.endswith(f".{local}") for local in _LOCAL_NAMES):
        raise Forbidden(host)
    return None


def check_resolved(host: str, port: int, found: Collection[str], *, exempt: Exemptions) -> list[Address]:
    """The addresses a name stands for, none of them private; raises Forbidden, also where there is none at all."""
    addresses = [ip_address(each) for each in dict.fromkeys(found)]
    if not addresses or not (exempt.cover(host, port) or all(map(is_public, addresses))):
        raise Forbidden(host)
    return addresses


def is_public(address: Address) -> bool:
    """Whether anyone on the internet could reach it."""
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _PRIVATE_4)
    return address in _GLOBAL_6 and not any(address in net for net in _PRIVATE_6)


def literal(host: str) -> Address | None:
    """The address that a host is, as systems read it: `127.1`, `0x7f000001`, `2130706433` and `017700000001` too.

    Raises Forbidden for what looks like one and is none.
    """
    bare = host.rstrip(".")
    if ":" in bare:
        try:
            return IPv6Address(bare)
        except ValueError:
            raise Forbidden(host) from None
    parts = bare.split(".")
    # What ends in a number is never a name.
    if not _NUMBER.fullmatch(parts[-1]):
        return None
    values = [_value(part) for part in parts]
    *firsts, last = values
    if len(values) > 4 or any(value is None for value in values):  # noqa: PLR2004 - bytes of an address
        raise Forbidden(host)
    whole = [value or 0 for value in firsts]
    tail = last or 0
    if any(value > 255 for value in whole) or tail >= 256 ** (4 - len(whole)):  # noqa: PLR2004
        raise Forbidden(host)
    return IPv4Address(sum(value << (24 - 8 * index) for index, value in enumerate(whole)) + tail)


def _value(part: str) -> int | None:
    if not _NUMBER.fullmatch(part) or len(part) > 16:  # noqa: PLR2004 - no part of an address is longer
        return None
    if part[:2].lower() == "0x":
        return int(part[2:] or "0", 16)
    if len(part) > 1 and part.startswith("0"):
        return int(part, 8) if set(part) <= set("01234567") else None
    return int(part)


def _name(host: str) -> str:
    """A host as it is asked for and certified; raises Forbidden."""
    if ":" in host:
        return host
    try:
        name = host.encode("ascii").decode() if host.isascii() else host.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise Forbidden(host) from None
    bare = name.removesuffix(".")
    if len(bare) > 253 or not all(_LABEL.fullmatch(label) for label in bare.split(".")):  # noqa: PLR2004
        raise Forbidden(host)
    return bare


def _ascii(target: str) -> str:
    return "".join(each if each.isascii() else "".join(f"%{byte:02X}" for byte in each.encode()) for each in target)
