"""The supervisor's process: `python -m loremesh_cli.mesh HOME PORT` runs a mesh until SIGTERM or SIGINT."""

import asyncio
import logging
import os
import sys
from pathlib import Path

from loremesh_cli.mesh import credentials, leftovers, ports
from loremesh_cli.mesh.home import Home, HomeError
from loremesh_cli.mesh.plan import Plan, outside, port_names
from loremesh_cli.mesh.processes import ProcessId
from loremesh_cli.mesh.state import MeshState, read
from loremesh_cli.mesh.supervisor import Supervisor
from loremesh_cli.mesh.surroundings import Surroundings


def main() -> int:
    """Hold the data directory, end what a killed supervisor left in it, and run the mesh."""
    home, gateway_port = Home(Path(sys.argv[1])), int(sys.argv[2])
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    try:
        home.make()
        with home.held():
            leftovers.end(home)
            supervisor = prepare(home, gateway_port)
            asyncio.run(supervisor.run())
    except (HomeError, ModuleNotFoundError, OSError, ValueError) as error:
        logging.getLogger("mesh").error("%s", error)  # noqa: TRY400 - these say what to do; a traceback would bury it
        return 1
    return 0


def prepare(home: Home, gateway_port: int) -> Supervisor:
    """Choose the ports, as far as possible those of the last time, and plan the mesh."""
    earlier = read(home.state) or MeshState()
    chosen = ports.choose(port_names(), earlier=earlier.ports, kept=[gateway_port])
    surroundings = Surroundings(
        home=home,
        ports=chosen | {"gateway": gateway_port},
        credentials=credentials.load(home.secrets),
        caller=os.environ,
    )
    state = MeshState(
        supervisor=ProcessId.of(os.getpid()), gateway_port=gateway_port, ports=chosen, external=outside(os.environ)
    )
    return Supervisor(Plan(surroundings).units(), home=home, state=state)


if __name__ == "__main__":
    sys.exit(main())
