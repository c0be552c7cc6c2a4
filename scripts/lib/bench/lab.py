"""Rows on a lab (LVM-thin, LIO and open-iscsi in guests), beside the bare commands for the same thing.

The bare commands are timed inside the guests, without the start of an interpreter.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cached_property

from scripts.lib.bench.row import Found, Part, Row, compared
from tests.support.lab.place import CHECKOUT, LabError
from tests.support.lab.roles import initiator

ROUNDS = 7
BUILD_S, UP_S, RUN_S = 1500, 300, 120
MOST_ATTACH, MOST_DATA = 1.3, 1.15
IQN = "iqn.2026-11.io.onelun.bench:by-hand"
NODE = "node1"
LAB = (sys.executable, "-m", "tests.support.lab")
HERE = f"{CHECKOUT}/scripts/lib/bench"
IN_GUEST = "/checkout/scripts/lib/bench"


def told(*argv: str, limit_s: float = RUN_S) -> str:
    """The stdout of scripts/lab. LabError, with its last words, when it fails or takes too long."""
    with subprocess.Popen([*LAB, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            stdout, stderr = process.communicate(timeout=limit_s)
        except BaseException as error:
            # Interrupted, it ends its guests itself; a lab that was coming up is removed.
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=30)
            process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise LabError(f"scripts/lab {' '.join(argv)} took more than {limit_s:g} s") from error
            raise
    if process.returncode:
        raise LabError(f"scripts/lab {' '.join(argv)}: {' '.join(stderr.split()[-60:])}")
    return stdout


class Lab:
    """A lab that is up, with a volume of onelun's and one made by hand in its pool."""

    def __init__(self, number: str) -> None:
        self.number = number
        self.address = f"198.18.{number}.11"

    def on(self, host: str, *argv: str) -> str:
        """The stdout of a command on a host."""
        return told("exec", "--id", self.number, "--limit", str(RUN_S), host, *argv, limit_s=RUN_S + 20)

    def ask(self, verb: str, *argv: str) -> dict:
        """Through onelun, from `front`."""
        python = ("env", f"PYTHONPATH={CHECKOUT}:{CHECKOUT}/lib", sys.executable)
        return json.loads(self.on("front", *python, f"{HERE}/on_front.py", verb, *argv))

    def by_hand(self, host: str, *argv: str) -> float:
        """In a guest."""
        return json.loads(self.on(host, "python3", f"{IN_GUEST}/in_guest.py", *argv))

    def attach(self, verb: str, volume: str) -> float:
        """By hand, `export` or `clone` on the NAS, then the login; seconds on both together."""
        return self.by_hand("nas1", verb, volume, IQN, self.address, initiator(NODE)) + self.by_hand(
            NODE, "login", IQN, self.address
        )

    def detach(self, volume: str) -> float:
        """The reverse."""
        return self.by_hand(NODE, "logout", IQN, self.address) + self.by_hand("nas1", "unexport", volume, IQN)

    @cached_property
    def rounds(self) -> dict[str, list[float]]:
        """The seconds of attaching and detaching the same volumes again and again."""
        self._make("by-hand")
        times: dict[str, list[float]] = {name: [] for name in ("map", "unmap", "attach", "detach")}
        for _ in range(ROUNDS + 1):
            asked = self.ask("round", "bench", NODE)
            for name, took in (
                ("map", asked["map"]),
                ("unmap", asked["unmap"]),
                ("attach", self.attach("export", "onelun/by-hand")),
                ("detach", self.detach("onelun/by-hand")),
            ):
                times[name].append(took)
        # The first round makes the volume, and fills caches.
        return {name: taken[1:] for name, taken in times.items()}

    @cached_property
    def copies(self) -> dict[str, list[float]]:
        """The seconds of writing and reading the same LUN, by onelun's target and by one beside it."""
        device = self.ask("map", "bench", NODE)["device"]
        self.attach("export", "same")
        by_hand = f"/dev/disk/by-path/ip-{self.address}:3260-iscsi-{IQN}-lun-0"
        found = json.loads(self.on(NODE, "python3", f"{IN_GUEST}/in_guest.py", "copy", device, by_hand))
        self.detach("same")
        self.ask("unmap", "bench", NODE)
        return found

    def clones(self) -> Found:
        """A new clone of an image on a node; each is deleted again."""
        self._make("origin")
        self.ask("image")
        ours, beside = [], []
        for number in range(ROUNDS + 1):
            ours.append(self.ask("clone", str(number))["clone"])
            beside.append(self.attach("clone", "onelun/origin"))
            self.detach("onelun/clone")
            self.on("nas1", "lvremove", "-q", "-y", "onelun/clone")
        return compared(ours[1:], beside[1:])

    def about(self) -> str:
        """What is in it."""
        uname = self.on(NODE, "uname", "-r").strip()
        return f"attachments and data: guests on user-mode Linux {uname}, LVM-thin, LIO, open-iscsi"

    def _make(self, name: str) -> None:
        script = f"lvcreate -q -y -V 256M -T onelun/thin -n {name} && lvchange -an onelun/{name}"
        self.on("nas1", "sh", "-c", script)


@contextlib.contextmanager
def standing() -> Iterator[Lab]:
    """A lab with LVM, LIO and open-iscsi. Nothing of it is left."""
    told("build", "uml", limit_s=BUILD_S)
    number = told("up", "--any", "--owner", str(os.getpid()), "--engine", "lvm", limit_s=UP_S).strip()
    try:
        yield Lab(number)
    finally:
        told("down", "--id", number)


def _attach(lab: Lab) -> Found:
    return compared(lab.rounds["map"], lab.rounds["attach"])


def _detach(lab: Lab) -> Found:
    return compared(lab.rounds["unmap"], lab.rounds["detach"])


def _write(lab: Lab) -> Found:
    return compared(lab.copies["write onelun"], lab.copies["write by hand"])


def _read(lab: Lab) -> Found:
    return compared(lab.copies["read onelun"], lab.copies["read by hand"])


PART = Part(
    "lab",
    standing,
    (
        Row(
            "clone-attach",
            "`clone` of an image, attached on a node, from exec to exit",
            "`lvcreate -s`, rtslib, `iscsiadm`",
            Lab.clones,
            MOST_ATTACH,
        ),
        Row("attach", "a volume to a node", "`lvchange`, rtslib, `iscsiadm`", _attach, MOST_ATTACH),
        Row("detach", "and back", "the same, the other way", _detach, MOST_ATTACH),
        Row("write", "32 MiB to a LUN on a node, O_DIRECT", "the same LUN, logged in by hand", _write, MOST_DATA),
        Row("read", "and from it", "the same LUN, logged in by hand", _read, MOST_DATA),
    ),
    Lab.about,
)
