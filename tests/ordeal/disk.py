"""A disk without room: the kernel refuses a process every byte it would write to a file, until there is room again.

The limit is one that an account may set for processes of its own while they run. It says EFBIG where a full file system
says ENOSPC; the stores treat both alike.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from loremesh_cli.mesh.processes import ProcessId


@contextmanager
def full(process: ProcessId) -> Iterator[None]:
    """No room for it while the block lasts. One that is started anew meanwhile finds room."""
    with suppress(ProcessLookupError):
        before, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, most))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            if process.alive():
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (before, most))
