"""The end of a lab: its first process dies, and with it, by the kernel's hand, everything in its namespaces."""

from __future__ import annotations

import os
import shutil
import time

from tests.support.lab import record
from tests.support.lab.place import Lab, LabError
from tests.support.sandbox.processes import wait_until


def down(lab: Lab) -> None:
    """Remove the lab. Repeating it succeeds. LabError when it cannot be removed."""
    process = record.holder(lab)
    if process:
        process.kill()
        wait_until(lambda: not process.alive(), f"the processes of lab {lab.number} should end", 30)
    end = time.monotonic() + 5
    while os.path.lexists(lab.dir) and time.monotonic() < end:
        shutil.rmtree(lab.dir, ignore_errors=True)
    if left := left_of(lab):
        raise LabError(f"lab {lab.number}: left behind: {'; '.join(left)}")


def left_of(lab: Lab) -> list[str]:
    """What is left of a lab that is down, one line each."""
    left = [f"directory {lab.dir}"] if os.path.lexists(lab.dir) else []
    others = (entry for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid())
    left += [f"process {entry}" for entry in others if _mentions(f"/proc/{entry}", lab)]
    with open("/proc/self/mountinfo") as file:
        left += [f"mount {line.split()[4]}" for line in file if f"{lab.dir}/" in line]
    return left


def _mentions(process: str, lab: Lab) -> bool:
    """Whether a process is of that lab: guests and the broker carry its directory in their environment."""
    try:
        with open(f"{process}/environ", "rb") as file:
            return f"={lab.dir}/".encode() in file.read()
    except OSError:
        return False
