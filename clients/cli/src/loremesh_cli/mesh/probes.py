"""Questions a process must answer before it counts as ready; each takes at most a second or two."""

import http.client
import socket
from collections.abc import Callable

from loremesh_cli.mesh.ports import LOOPBACK

SECONDS = 1.0


def http_ok(port: int, path: str) -> Callable[[], bool]:
    """Ask for `path` over HTTP: ready means status 200."""

    def ready() -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=SECONDS)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ready


def listens(port: int) -> Callable[[], bool]:
    """Connect: ready means somebody takes the connection."""

    def ready() -> bool:
        try:
            with socket.create_connection((LOOPBACK, port), timeout=SECONDS):
                return True
        except OSError:
            return False

    return ready


def greets_with(port: int, *, words: bytes) -> Callable[[], bool]:
    """Connect and read the first line a server sends by itself: ready means `words` are in it."""

    def ready() -> bool:
        try:
            with (
                socket.create_connection((LOOPBACK, port), timeout=SECONDS) as connection,
                connection.makefile("rb") as lines,
            ):
                return words in lines.readline()
        except OSError:
            return False

    return ready
