"""Runs one program for as long as a `with` block lasts; for tests and other short lives."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loremesh_cli.mesh.logfiles import last_words
from loremesh_cli.mesh.program import Program


class StartFailedError(Exception):
    """A program ended, or did not get ready in time; the message ends with its last log lines."""


@contextmanager
def running(program: Program, *, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program, wait until it is ready, and stop it at the end of the block.

    Raises StartFailedError. Should this process be killed, the program is stopped by the kernel.
    """
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*leash(), *program.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            **program.process_options(),
        )
    try:
        wait_until_ready(program, process, log=log)
        yield process
    finally:
        stop(program, process)


def leash(sent: signal.Signals = signal.SIGKILL) -> tuple[str, ...]:
    """Return the prefix by which the kernel sends a process a signal when ours ends, where the machine has it."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", sent.name.removeprefix("SIG"), "--") if setpriv else ()


def wait_until_ready(program: Program, process: "subprocess.Popen[bytes]", *, log: Path) -> None:
    """Poll the program's own probe. Raises StartFailedError when it ends first or its time is up."""
    deadline = time.monotonic() + program.start_seconds
    while not program.ready():
        if process.poll() is not None:
            message = f"{program.name} ended with status {process.returncode}:\n{last_words(log)}"
            raise StartFailedError(message)
        if time.monotonic() > deadline:
            message = f"{program.name} was not ready after {program.start_seconds:.0f} s:\n{last_words(log)}"
            raise StartFailedError(message)
        time.sleep(0.02)


def stop(program: Program, process: "subprocess.Popen[bytes]") -> None:
    """Ask a process to end, and end it when it has not done so in its time."""
    if process.poll() is None:
        process.send_signal(program.stop_signal)
    try:
        process.wait(program.stop_seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(program.stop_seconds)
    program.clean_up()
