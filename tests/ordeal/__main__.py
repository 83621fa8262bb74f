"""The Ordeal: `python -m tests.ordeal [--seed N] [--documents N] [--runs N] [--kills N] [--seconds S] [--lease S]`."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.ordeal.run import Size, ordeal


def main() -> int:
    """Print the plan, what happens, and the table; 0 when the table is all zero."""
    arguments = _arguments()
    size = Size(
        seed=arguments.seed,
        documents=arguments.documents,
        runs=arguments.runs,
        faults=arguments.kills,
        seconds=arguments.seconds,
        lease=arguments.lease,
    )
    with tempfile.TemporaryDirectory(prefix="loremesh-ordeal-", ignore_cleanup_errors=True) as folder:
        directory = arguments.keep or Path(folder)
        directory.mkdir(parents=True, exist_ok=arguments.keep is None)
        report = asyncio.run(ordeal(size, directory=directory, say=print))
    print(report)
    return 0 if report.passed else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ordeal", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="decides the plan, the texts and the model's answers")
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--runs", type=int, default=12, help="of crews and flows")
    parser.add_argument("--kills", type=int, default=30, help="faults of all kinds")
    parser.add_argument("--seconds", type=float, default=80.0, help="for how long documents come in and things break")
    parser.add_argument("--lease", type=float, default=4.0, help="seconds a silent worker keeps its jobs")
    parser.add_argument("--keep", type=Path, help="a new directory for the mesh and the ledger, which stay")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
