"""`scripts/bench lab`: real engines in guests, beside the bare commands for the same thing; all runs in turn, as ratios.

The bare commands are timed inside the guests, without the start of an interpreter. A lab of its own is up meanwhile, and
then throw-away guests; a run of more than LIMIT_S ends, and what it started with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from types import FrameType

from rich.console import Console
from rich.table import Table
from tests.support.lab.place import CHECKOUT, LabError
from tests.support.lab.roles import initiator

ROUNDS, LIMIT_S = 7, 1500
UP_S, RUN_S, GUEST_S = 300, 120, 600
MOST_ATTACH, MOST_SIZE, MOST_DATA = 1.3, 1.3, 1.15
IQN = "iqn.2026-11.io.onelun.bench:by-hand"
NODE = "node1"
LAB = (sys.executable, "-m", "tests.support.lab")
HERE = f"{CHECKOUT}/scripts/lib"
IN_GUEST = "/checkout/scripts/lib"


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

    def ask(self, verb: str) -> dict[str, float]:
        """Through onelun, from `front`."""
        return json.loads(self.on("front", sys.executable, f"{HERE}/bench_ask.py", verb, "bench", NODE))

    def by_hand(self, host: str, *argv: str) -> float:
        """In a guest."""
        return json.loads(self.on(host, "python3", f"{IN_GUEST}/bench_guest.py", *argv))

    def attach(self, volume: str) -> float:
        """By hand; seconds on the NAS and the node together."""
        return self.by_hand("nas1", "export", volume, IQN, self.address, initiator(NODE)) + self.by_hand(
            NODE, "login", IQN, self.address
        )

    def detach(self, volume: str) -> float:
        """The reverse."""
        return self.by_hand(NODE, "logout", IQN, self.address) + self.by_hand("nas1", "unexport", volume, IQN)


@contextlib.contextmanager
def standing() -> Iterator[Lab]:
    """A lab with LVM, LIO and open-iscsi. Nothing of it is left."""
    number = told("up", "--any", "--owner", str(os.getpid()), "--engine", "lvm", limit_s=UP_S).strip()
    try:
        yield Lab(number)
    finally:
        told("down", "--id", number)


class Bench:
    """The measurements and the table that they fill."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.missed = 0
        self.table = Table(title="onelun bench lab", title_justify="left")
        for heading in ("what", "onelun", "by hand", "ratio", "goal", ""):
            self.table.add_column(heading)

    def run(self) -> None:
        """All of it."""
        with standing() as lab:
            self.attachments(lab)
            self.data(lab)
        for kind, engine, hand in (("uml", "lvm", "lvcreate -s"), ("qemu", "zfs", "zfs snapshot + zfs clone")):
            self.clones(kind, engine, hand)

    def attachments(self, lab: Lab) -> None:
        """An existing volume to a node and back."""
        lab.on("nas1", "sh", "-c", "lvcreate -q -y -V 256M -T onelun/thin -n by-hand && lvchange -an onelun/by-hand")
        times: dict[str, list[float]] = {name: [] for name in ("map", "unmap", "attach", "detach")}
        for _ in range(ROUNDS + 1):
            asked = lab.ask("round")
            for name, took in (
                ("map", asked["map"]),
                ("unmap", asked["unmap"]),
                ("attach", lab.attach("onelun/by-hand")),
                ("detach", lab.detach("onelun/by-hand")),
            ):
                times[name].append(took)
        # The first round makes the volume, and fills caches.
        middle = {name: statistics.median(taken[1:]) for name, taken in times.items()}
        self._row("attach: lvm, lio, iscsi", middle["map"], middle["attach"], MOST_ATTACH)
        self._row("detach", middle["unmap"], middle["detach"], MOST_ATTACH)

    def data(self, lab: Lab) -> None:
        """The same LUN, by onelun's target and by one beside it."""
        device = lab.ask("map")["device"]
        lab.attach("same")
        by_hand = f"/dev/disk/by-path/ip-{lab.address}:3260-iscsi-{IQN}-lun-0"
        found = json.loads(lab.on(NODE, "python3", f"{IN_GUEST}/bench_guest.py", "copy", str(device), by_hand))
        lab.detach("same")
        lab.ask("unmap")
        for what in ("write", "read"):
            self._row(f"{what} 32 MiB, O_DIRECT", found[f"{what} onelun"], found[f"{what} by hand"], MOST_DATA)

    def clones(self, kind: str, engine: str, hand: str) -> None:
        """In a guest with a disk of 3 TiB that takes no space."""
        script = f"modprobe -q zfs; exec python3 {IN_GUEST}/bench_clones.py {engine}"
        argv = ("--disk", "3T", "--memory", "768", "--limit", str(GUEST_S), kind, "--", "sh", "-c", script)
        found = json.loads(told("run", *argv, limit_s=GUEST_S + 120))
        self._row(f"clone of 1 GiB, {engine}, against {hand}", found["1 GiB"], found["by hand"])
        self._row(f"clone of 1 TiB, {engine}, against 1 GiB", found["1 TiB"], found["1 GiB"], MOST_SIZE)

    def _row(self, what: str, ours: float, other: float, most: float | None = None) -> None:
        ratio = ours / other
        missed = most is not None and ratio > most
        self.missed += missed
        verdict = "" if most is None else "[red]missed[/]" if missed else "[green]met[/]"
        goal = "" if most is None else f"≤ {most} x"
        self.table.add_row(what, _ms(ours), _ms(other), f"{ratio:.2f} x", goal, verdict)
        self.console.print(f"  {what}: {_ms(ours)}, {_ms(other)}, {ratio:.2f} x", highlight=False, soft_wrap=True)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.0f} ms"


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    if number == signal.SIGALRM:
        raise LabError(f"the whole took more than {LIMIT_S} s")
    raise KeyboardInterrupt


def main() -> int:
    """The exit status: 1 when a goal is missed."""
    # A handler of our own for SIGINT too: a shell's background command, and its children, would ignore it.
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGALRM):
        signal.signal(each, _stop)
    signal.alarm(LIMIT_S)
    console = Console(width=None if Console().is_terminal else 140)
    bench = Bench(console)
    try:
        bench.run()
    finally:
        if bench.table.row_count:
            console.print(bench.table)
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    console.print(f"{os.cpu_count()} processors, load {load}; {bench.missed or 'no'} goals missed")
    return 1 if bench.missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, RuntimeError) as error:
        sys.exit(f"scripts/bench lab: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
