"""Namespaces of a lab's own: its network, its mounts, and its processes, which all die with the first of them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
from types import FrameType
from typing import NoReturn

from tests.support.lab.place import LabError
from tests.support.sandbox.processes import run

_NEWNS, _NEWPID, _NEWNET = 0x00020000, 0x20000000, 0x40000000
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: int) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise LabError(
            f"the lab needs namespaces of its own, which this machine refuses ({name}: {os.strerror(number)})"
        )


def fork_apart(*, dies_with_us: bool) -> int:
    """Fork into new namespaces, where the child is process 1; returns its pid, and 0 in the child.

    The child is killed with its parent if `dies_with_us`; every process of its namespace is killed with it, always.
    """
    if os.geteuid() != 0:
        raise LabError("the lab needs root: it makes namespaces, network devices and mounts")
    _call("unshare", _NEWNS | _NEWPID | _NEWNET)
    child = os.fork()
    if child:
        return child
    if dies_with_us:
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "proc", "proc", "/proc")
    return 0


def hold(lock: int) -> NoReturn:
    """Be the first process of namespaces and nothing else; of all that we have open, keep `lock`."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    # Who waits for the end of our output must not wait for the end of the lab.
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    for descriptor in {int(entry) for entry in os.listdir("/proc/self/fd")} - {0, 1, 2, lock}:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    os.set_inheritable(lock, True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    os.execvp("sleep", ["sleep", "infinity"])


def wait_for(child: int) -> int:
    """Wait for a child and return its status; what would end us ends the child first."""

    def end(number: int, _: FrameType | None) -> None:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os._exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, end)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def fork_inside(pid: int) -> int:
    """Fork into the namespaces of process `pid`; returns the pid of a child that ends as the one inside does, and 0 inside.

    It dies with us. We ourselves stay where we are, with a view of all processes and of our own mounts.
    """
    child = os.fork()
    if child:
        return child
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        _enter(pid)
    except (OSError, LabError) as error:
        print(f"scripts/lab: the namespaces of process {pid} cannot be entered: {error}", file=sys.stderr)
        os._exit(1)
    inside = os.fork()
    if inside == 0:
        _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL)
        return 0
    status = wait_for(inside)
    os._exit(status if status >= 0 else 128 - status)


def _enter(pid: int) -> None:
    # A process namespace is that of the children we start from now on.
    for kind, flag in (("pid", _NEWPID), ("net", _NEWNET), ("mnt", _NEWNS)):
        descriptor = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _call("setns", descriptor, flag)
        finally:
            os.close(descriptor)
