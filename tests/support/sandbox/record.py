"""What a sandbox says of itself in its directory: whose it is and whether it is complete."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import random
from typing import Any

from tests.support.sandbox.place import CHECKOUT, IDS, Place, SandboxError, default_dir
from tests.support.sandbox.processes import Process, look, marked


def take_place(number: int | None, directory: str | None, owner: int | None) -> Place:
    """A new sandbox's directory; any free number unless one is given. SandboxError when it is taken.

    `owner` is the process whose sandbox it is, until told otherwise ourselves: when it is gone, `down` without a number
    ends this sandbox too.
    """
    # Number 0 is for a person, who gives none. The others are taken in no order, so that a number is not at once another's.
    for candidate in random.sample(IDS[1:], len(IDS) - 1) if number is None else (number,):
        place = Place(candidate, os.path.abspath(directory or default_dir(candidate)))
        if any(blank in place.dir for blank in " \t\n\\") or len(place.dir) > 60:
            raise SandboxError(
                f"{place.dir!r} cannot be a sandbox's directory: give one of at most 60 characters without blanks"
            )
        if os.path.exists(f"/sys/class/net/{place.bridge}"):
            continue
        try:
            os.mkdir(place.dir, 0o711)
        except FileExistsError:
            continue
        except OSError as error:
            raise SandboxError(f"cannot make {place.dir}: {error.strerror}") from error
        os.chmod(place.dir, 0o711)
        keep_owner(place, owner or os.getpid())
        return place
    if number is None:
        raise SandboxError("there is no free number for a sandbox: end some with scripts/sandbox down --id N")
    raise SandboxError(f"sandbox {number} is up, or was not ended: scripts/sandbox down --id {number}")


def keep_owner(place: Place, pid: int | None) -> None:
    """Note for which process the sandbox is; for None, that it is for a person, until `down`."""
    process = look(pid) if pid else None
    write(place, checkout=CHECKOUT, owner=[process.pid, process.started] if process else None)


def read(place: Place) -> dict[str, Any]:
    """What was written of it; empty when nothing was."""
    try:
        with open(place.path("sandbox.json")) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(place: Place, **facts: object) -> None:
    """Add facts, atomically."""
    path = place.path("sandbox.json")
    with open(os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump({"number": place.number, **read(place), **facts}, file)
    os.rename(f"{path}.new", path)


def find(number: int, directory: str | None) -> Place:
    """Sandbox `number`, wherever its directory is."""
    if directory is None:
        for place in known():
            if place.number == number:
                return place
    return Place(number, os.path.abspath(directory or default_dir(number)))


def known() -> list[Place]:
    """Every sandbox that this machine shows a trace of: a directory in the usual place, or a marked process."""
    found = set(marked().values())
    for path in glob.glob(default_dir(0).removesuffix("0") + "*"):
        with contextlib.suppress(ValueError):
            found.add(Place(int(path.rsplit("-", 1)[1]), path))
    return sorted(found, key=lambda place: place.number)


def to_end() -> list[Place]:
    """What `down` without a number ends: number 0, and whatever was left behind by who made it for himself."""
    return [place for place in known() if _is_ours(place) and not _is_kept(place)]


def _is_ours(place: Place) -> bool:
    checkout = read(place).get("checkout")
    return checkout in (None, CHECKOUT) or not os.path.isdir(checkout)


def _is_kept(place: Place) -> bool:
    facts = read(place)
    pid, started = facts.get("owner") or (0, 0)
    if pid:
        return Process(pid, started, "").alive()
    return bool(facts) and place.number != 0
