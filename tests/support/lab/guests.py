"""Guests that run: started, waited for, killed, started again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess

from tests.support.lab import record
from tests.support.lab.calls import answers, check
from tests.support.lab.machine import Guest, machine
from tests.support.lab.place import LabError
from tests.support.sandbox.place import SandboxError
from tests.support.sandbox.processes import PATH, Process, look, wait_until

# A guest is there in 5 s, with QEMU in 10, and on two busy cores in half a minute.
BOOT_S = 300
STOP_S = 60


def start(guest: Guest, root: str) -> Process:
    """Start a guest, with its console in the lab's log."""
    os.makedirs(guest.directory, exist_ok=True)
    os.makedirs(guest.lab.path("log"), exist_ok=True)
    with open(guest.lab.log(guest.name), "ab") as log:
        child = subprocess.Popen(
            machine(guest.kind).argv(guest, root),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            # Its memory is a file there, unlinked at once; the directory is the lab's own, in memory.
            env={"PATH": PATH, "LC_ALL": "C.UTF-8", "TMPDIR": guest.lab.path("memory"), "HOME": guest.directory},
        )
    process = look(child.pid)
    record.keep_process(guest.lab, guest.name, process)
    return process


def wait(guest: Guest, process: Process, limit_s: float = BOOT_S) -> None:
    """Wait until the guest takes commands. LabError, with the last words of its console, if it does not."""
    try:
        wait_until(lambda: answers(guest.lab, guest.name), f"{guest.name} should answer", limit_s, needs=process)
    except SandboxError as error:
        with open(guest.lab.log(guest.name), errors="replace") as file:
            words = " | ".join(file.read().splitlines()[-8:])
        raise LabError(f"{error}; its console ends with: {words}") from error


def kill(guest: Guest) -> None:
    """Cut its power: it and all its helper processes die at once. A dead guest stays dead."""
    process = record.process_of(guest.lab, guest.name)
    if process is None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    wait_until(lambda: _is_over(process), f"{guest.name} should die", 60)


def stop(guest: Guest) -> None:
    """Let it end its services in order and switch itself off. LabError when it does not."""
    process = record.process_of(guest.lab, guest.name)
    if process is None:
        return
    # The guest may be gone before it could say that it has begun.
    with contextlib.suppress(LabError):
        check(guest.lab, guest.name, "setsid", "-f", "/checkout/tests/support/lab/guest/stop")
    wait_until(lambda: _is_over(process), f"{guest.name} should switch itself off", STOP_S)


def _is_over(process: Process) -> bool:
    # A killed QEMU is a zombie at once, and holds its taps and disks until its last thread has ended and it is buried,
    # which the first process of the lab's namespace has the kernel do.
    return not os.path.exists(f"/proc/{process.pid}")
