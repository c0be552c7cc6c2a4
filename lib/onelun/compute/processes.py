"""Processes that carry data: they outlive the agent, and the next one finds them again.

A process is known by its pid together with the moment the kernel started it, so that a pid that was given to another
program is never taken for ours (proc(5), field 22 of /proc/PID/stat).
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

import msgspec


class Daemon(msgspec.Struct, frozen=True):
    """One process. `started` is in clock ticks since the machine's start."""

    pid: int
    started: int


def daemon_of(pid: int) -> Daemon | None:
    """The living process with that pid. A zombie does no work any more and counts as gone."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in "ZX" else Daemon(pid, int(fields[19]))


def parent(pid: int) -> int | None:
    """The process that started it, or took it over; 0 is nobody. None when it is gone."""
    fields = _stat(pid)
    return None if fields is None else int(fields[1])


def lives(daemon: Daemon | None) -> bool:
    """Whether it is still there."""
    return daemon is not None and daemon_of(daemon.pid) == daemon


def working_below(directory: str) -> list[Daemon]:
    """The processes of this host with a path below `directory` among their arguments.

    Hosts of a sandbox share the table of processes but not the mount namespace, where the same path is another file.
    """
    marker = os.fsencode(directory.rstrip("/") + "/")
    ours = os.readlink("/proc/self/ns/mnt")
    found = []
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if marker not in file.read():
                    continue
            if os.readlink(f"/proc/{name}/ns/mnt") != ours:
                continue
        except OSError:
            continue
        if daemon := daemon_of(int(name)):
            found.append(daemon)
    return found


async def end(daemon: Daemon, *, grace_s: float) -> bool:
    """Ask it to end, and kill it after `grace_s` (0: at once). False when it is stuck in the kernel. Gone: True."""
    if grace_s > 0:
        _send(daemon, signal.SIGTERM)
        if await _gone(daemon, grace_s):
            return True
    _send(daemon, signal.SIGKILL)
    return await _gone(daemon, 2.0)


def _stat(pid: int) -> list[str] | None:
    """Its fields in proc(5) stat, from the third on: the second is the program's name, with any parentheses in it."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def _send(daemon: Daemon, number: signal.Signals) -> None:
    """Signal it through a descriptor of the process: between a look at a pid and kill(2) the pid may change hands."""
    try:
        descriptor = os.pidfd_open(daemon.pid)
    except ProcessLookupError:
        return
    try:
        if lives(daemon):
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


async def _gone(daemon: Daemon, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while lives(daemon):
        if time.monotonic() >= until:
            return False
        await asyncio.sleep(0.003)
    return True
