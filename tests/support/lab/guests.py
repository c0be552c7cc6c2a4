"""Guests that run: started, waited for, killed."""

from __future__ import annotations

import os
import subprocess
import time

from tests.support.lab.calls import answers
from tests.support.lab.machine import Guest, machine
from tests.support.lab.place import LabError
from tests.support.sandbox.place import SandboxError
from tests.support.sandbox.processes import PATH, Process, look, wait_until

# What a guest's own limits are: it should be there in 5 s, and on two busy cores in half a minute.
BOOT_S = 90


def start(guest: Guest, root: str) -> Process:
    """Start a guest, with its console in the lab's log; its pid is kept as `guests/NAME.pid`."""
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
    return look(child.pid)


def wait(guest: Guest, process: Process, limit_s: float = BOOT_S) -> float:
    """Wait until the guest takes commands; returns the seconds it took. LabError, with its last words, if it does not."""
    started = time.monotonic()
    try:
        wait_until(lambda: answers(guest.lab, guest.name), f"{guest.name} should answer", limit_s, needs=process)
    except SandboxError as error:
        raise LabError(f"{error}; its console ends with: {last_words(guest)}") from error
    return time.monotonic() - started


def last_words(guest: Guest) -> str:
    """The end of a guest's console."""
    with open(guest.lab.log(guest.name), errors="replace") as file:
        return " | ".join(file.read().splitlines()[-8:])
