"""What a parsing process gives up before it opens a stranger's file: endless memory, the network, other programs."""

import ctypes
import platform
import resource
import struct
import sys
import time
from pathlib import Path

_OPEN_FILES = 128

_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_MODE_FILTER = 22, 38, 2
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | 1  # SECCOMP_RET_ALLOW; SECCOMP_RET_ERRNO with EPERM
_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # classic BPF, linux/filter.h
_OTHER_ABI = 0x40000000  # x32 system calls, which would slip past the numbers below

# Per machine: its audit architecture and its numbers for socket, connect, execve, execveat, ptrace, process_vm_readv,
# process_vm_writev, kill, tkill, pidfd_send_signal, pidfd_getfd and io_uring_setup (linux/audit.h, asm/unistd.h).
_SYSTEM_CALLS = {
    "x86_64": (0xC000003E, (41, 42, 59, 322, 101, 310, 311, 62, 200, 424, 438, 425)),
    "aarch64": (0xC00000B7, (198, 203, 221, 281, 117, 270, 271, 129, 130, 424, 438, 425)),
}
_REFUSED_EVENTS = ("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.fork", "os.system", "os.kill")


def enter(*, memory_bytes: int) -> None:
    """Limit this process for good: address space, file sizes, no core dumps, no sockets, no other programs."""
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_FSIZE, 2 * memory_bytes)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    if not _filter_system_calls():
        # An emulated or unusual machine: Python code at least is held to the same rules.
        sys.addaudithook(_refuse)


def allow_cpu(seconds: int) -> None:
    """Let this process use `seconds` more of processor time; then the kernel ends it with SIGXCPU."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds + 1, hard))


def _limit(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _refuse(event: str, _arguments: tuple[object, ...]) -> None:
    if event.startswith(_REFUSED_EVENTS):
        message = f"{event} is not for parsers"
        raise PermissionError(message)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _filter_system_calls() -> bool:
    """Install a seccomp filter, for all threads to come; False where the kernel or the machine has none."""
    if platform.machine() not in _SYSTEM_CALLS:
        return False
    code = _filter(*_SYSTEM_CALLS[platform.machine()])
    buffer = ctypes.create_string_buffer(code, len(code))
    program = _Program(len(code) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs was refused")
    return bool(prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) == 0)


def _filter(architecture: int, refused: tuple[int, ...]) -> bytes:
    """Return the BPF program that allows all system calls but `refused`; jumps count the instructions to skip."""
    left = len(refused)
    return b"".join(
        (
            _instruction(_LOAD, 4),  # the architecture
            _instruction(_JUMP_EQUAL, architecture, otherwise=left + 3),
            _instruction(_LOAD, 0),  # the system call's number
            _instruction(_JUMP_AT_LEAST, _OTHER_ABI, then=left + 1),
            *(_instruction(_JUMP_EQUAL, number, then=left - at) for at, number in enumerate(refused)),
            _instruction(_RETURN, _ALLOW),
            _instruction(_RETURN, _REFUSE),
        ),
    )


def _instruction(code: int, value: int, *, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("HBBI", code, then, otherwise, value)


def resident_bytes() -> int:
    """Return the memory this process holds; getrusage's maximum would count the parent's too, from the fork."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
