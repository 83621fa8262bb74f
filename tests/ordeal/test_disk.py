"""A disk is full for one process, for a while."""

import subprocess
import sys

import pytest
from loremesh_cli.mesh.processes import ProcessId

from tests.ordeal import disk

pytestmark = pytest.mark.conformance

_WRITER = """
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
for _ in sys.stdin:
    try:
        os.write(file, b"x")
        print("written", flush=True)
    except OSError:
        print("refused", flush=True)
"""


def test_a_process_is_refused_every_write_to_a_file_until_there_is_room_again(tmp_path):
    command = [sys.executable, "-c", _WRITER, str(tmp_path / "file")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as writer:

        def ask():
            writer.stdin.write("\n")
            return writer.stdout.readline().strip()

        assert ask() == "written"
        with disk.full(ProcessId.of(writer.pid)):
            assert [ask(), ask()] == ["refused", "refused"]
        assert ask() == "written"
        writer.stdin.close()
    assert (tmp_path / "file").read_text() == "xx"


def test_a_process_that_ends_while_its_disk_is_full_is_no_error():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as writer:
        process = ProcessId.of(writer.pid)
        with disk.full(process):
            writer.kill()
            writer.wait()
        with disk.full(process):
            pass
