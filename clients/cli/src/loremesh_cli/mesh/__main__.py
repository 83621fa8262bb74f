"""The supervisor's process: `python -m loremesh_cli.mesh HOME PORT` runs a mesh until SIGTERM or SIGINT."""

import asyncio
import logging
import os
import sys
from pathlib import Path

from loremesh_cli.mesh import credentials, leftovers, ports
from loremesh_cli.mesh.home import Home
from loremesh_cli.mesh.plan import Plan, outside, port_names
from loremesh_cli.mesh.processes import ProcessId
from loremesh_cli.mesh.state import MeshState, read
from loremesh_cli.mesh.supervisor import Supervisor


def main() -> None:
    """Hold the data directory, end what a killed supervisor left in it, and run the mesh."""
    home, gateway_port = Home(Path(sys.argv[1])), int(sys.argv[2])
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    home.make()
    with home.held():
        leftovers.end(home)
        earlier = read(home.state) or MeshState()
        chosen = ports.choose(port_names(), earlier=earlier.ports, kept=[gateway_port])
        state = MeshState(
            supervisor=ProcessId.of(os.getpid()),
            gateway_port=gateway_port,
            ports=chosen,
            external=outside(os.environ),
        )
        plan = Plan(
            home=home,
            ports=chosen | {"gateway": gateway_port},
            credentials=credentials.load(home.secrets),
            caller=os.environ,
        )
        asyncio.run(Supervisor(plan.units(), home=home, state=state).run())


if __name__ == "__main__":
    main()
