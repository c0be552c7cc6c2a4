"""What a lab says of itself in its directory: whose it is, which guests it has, and its first process."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import random
from typing import Any

from tests.support.lab.machine import Guest
from tests.support.lab.place import CHECKOUT, IDS, Lab, LabError, default_dir
from tests.support.sandbox.processes import Process, look

_FILE = "lab.json"


def take_lab(number: int | None, owner: int | None) -> Lab:
    """A new lab's directory; any free number unless one is given. LabError when it is taken."""
    for candidate in random.sample(IDS[1:], len(IDS) - 1) if number is None else (number,):
        lab = Lab(candidate, default_dir(candidate))
        try:
            os.mkdir(lab.dir, 0o711)
        except FileExistsError:
            continue
        process = look(owner or os.getpid())
        write(lab, checkout=CHECKOUT, owner=[process.pid, process.started], forever=owner is None)
        return lab
    if number is None:
        raise LabError("there is no free number for a lab: end some with scripts/lab down --id N")
    raise LabError(f"lab {number} is up, or was not ended: scripts/lab down --id {number}")


def read(lab: Lab) -> dict[str, Any]:
    """What was written of it; empty when nothing was."""
    try:
        with open(lab.path(_FILE)) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(lab: Lab, **facts: object) -> None:
    """Add facts, atomically."""
    path = lab.path(_FILE)
    with open(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({**read(lab), **facts}, file)
    os.rename(f"{path}.new", path)


def known() -> list[Lab]:
    """Every lab that has a directory."""
    numbers = [path.rpartition("-")[2] for path in glob.glob(default_dir(0)[:-1] + "*")]
    return [Lab(int(number), default_dir(int(number))) for number in sorted(numbers) if number.isdigit()]


def abandoned() -> list[Lab]:
    """Labs of this checkout that were made for a process, or by one that never finished, and that is gone."""
    found = []
    for lab in known():
        facts = read(lab)
        pid, started = facts.get("owner") or (0, 0)
        kept = facts.get("forever") and facts.get("ready")
        if facts.get("checkout") == CHECKOUT and not kept and not Process(pid, started, "").alive():
            found.append(lab)
    return found


def holder(lab: Lab) -> Process | None:
    """The first process of the lab's namespaces, while it lives; with it goes everything."""
    pid, started = read(lab).get("holder") or (0, 0)
    process = Process(pid, started, "holder")
    return process if process.alive() else None


def keep_guests(lab: Lab, guests: list[Guest]) -> None:
    """Note which guests there are."""
    write(
        lab,
        guests={
            guest.name: [guest.kind, guest.memory_mib, guest.disks, guest.upper, guest.settings] for guest in guests
        },
    )


def guests(lab: Lab) -> dict[str, Guest]:
    """The guests of a lab, by name."""
    return {
        name: Guest(lab, name, kind, memory_mib, tuple(disks), upper, settings)
        for name, (kind, memory_mib, disks, upper, settings) in read(lab).get("guests", {}).items()
    }


def keep_process(lab: Lab, name: str, process: Process) -> None:
    """Note the process of a guest, numbered as in the lab's own namespace."""
    os.makedirs(lab.path("pids"), exist_ok=True)
    with open(lab.path("pids", name), "w") as file:
        file.write(f"{process.pid} {process.started}\n")


def process_of(lab: Lab, name: str) -> Process | None:
    """The process of a guest (or of `frontend`, `broker`) while it runs; asked inside the lab's namespace."""
    with contextlib.suppress(OSError, ValueError), open(lab.path("pids", name)) as file:
        pid, started = (int(word) for word in file.read().split())
        process = Process(pid, started, name)
        return process if process.alive() else None
    return None
