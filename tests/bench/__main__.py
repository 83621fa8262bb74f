"""Measures a mesh against the raw limit and against a peer, in one run: `scripts/bench`."""

import tempfile
from pathlib import Path

from tests.bench import agents, chat, crews, idle, ingest, jobs, mesh, quality, search


def main() -> None:
    """Run everything and print a line for each ratio."""
    jobs.main()
    with tempfile.TemporaryDirectory(prefix="loremesh-bench-") as place, mesh.provider() as base_url:
        data = Path(place) / "mesh"
        with mesh.running(data, base_url=base_url) as (running, _):
            idle.memory(running)
            found = ingest.throughput(running)
            quality.ranking(running, found)
            asked = search.through(running)
            chat.first_token(running, base_url)
            agents.acting(running, base_url)
            crews.crews(running, base_url)
        idle.second_start(running)
        search.against_engine(running, asked)


if __name__ == "__main__":
    main()
