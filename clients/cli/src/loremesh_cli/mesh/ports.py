"""Free TCP ports on loopback."""

import secrets
import socket
from collections.abc import Iterable, Mapping

LOOPBACK = "127.0.0.1"
# Below the range the kernel gives to outgoing connections, so that a restarted server finds its port still free.
CANDIDATES = range(20_000, 32_000)


def free_ports(count: int) -> list[int]:
    """Return `count` different ports nobody listens on at this moment."""
    return list(choose((str(number) for number in range(count)), earlier={}).values())


def choose(names: Iterable[str], *, earlier: Mapping[str, int], kept: Iterable[int] = ()) -> dict[str, int]:
    """Return a free port for each name: the earlier one where it is still free; never one of `kept`."""
    taken = set(kept)
    chosen: dict[str, int] = {}
    for name in names:
        port = earlier.get(name, 0)
        if port in taken or not (port and is_free(port)):
            port = _another(taken)
        taken.add(port)
        chosen[name] = port
    return chosen


def _another(taken: set[int]) -> int:
    """Raises OSError when hardly any port is free."""
    for port in secrets.SystemRandom().sample(CANDIDATES, k=len(CANDIDATES)):
        if port not in taken and is_free(port):
            return port
    message = f"no free port between {CANDIDATES.start} and {CANDIDATES.stop}"
    raise OSError(message)


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this loopback port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)  # two sockets which allow it may be bound to one port; only one may listen
        except OSError:
            return False
        return True
