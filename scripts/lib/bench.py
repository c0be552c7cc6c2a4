"""`scripts/bench`: what an action costs, side by side with what it could cost; one table, and whether the goals are met."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import statistics
import sys
from types import FrameType

from rich.console import Console
from rich.table import Table
from scripts.lib.bench_tls import round_trip
from scripts.lib.oned import CHECKOUT, Image, Oned
from scripts.lib.stopwatch import Program, burst, medians
from tests.support.sandbox.__main__ import environment
from tests.support.sandbox.place import Place, SandboxError
from tests.support.sandbox.startup import Variant, up
from tests.support.sandbox.teardown import down

ROUNDS, AT_ONCE, CLONES = 60, 200, 20
MOST_RATIO, LEAST_PER_SECOND, MOST_P99_S = 1.5, 100.0, 2.0


class Bench:
    """The measurements and the table that they fill."""

    def __init__(self, place: Place, console: Console, filesystem: str) -> None:
        self.place = place
        self.filesystem = filesystem
        self.console = console
        self.oned = Oned("7.5", place.datastores, environment(place), safe_dirs=place.dir)
        self.variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment(place)}
        self.missed = 0
        self.table = Table(title="onelun bench", title_justify="left")
        for heading in ("what", "figure", "goal", ""):
            self.table.add_column(heading)

    def run(self) -> None:
        """All of it."""
        self.one_action()
        self.many_actions()
        self.clone_and_attach()
        self.tls()

    def one_action(self) -> None:
        """An action whose NAS answers at once, against the bare interpreter and a naive script, in turn."""
        stdin = self._stdin("monitor", self.oned.document(None))
        figures = medians(
            {
                "bare": Program(["/usr/bin/python3", "-I", "-S", "-c", "pass"], self.variables),
                "stub": Program([f"{CHECKOUT}/datastore/onelun/monitor", "102"], self.variables, stdin),
                "naive": Program(
                    [sys.executable, f"{CHECKOUT}/scripts/lib/naive_action.py", "102"], self.variables, stdin
                ),
            },
            ROUNDS,
        )
        bare, stub, naive = (figures[name] for name in ("bare", "stub", "naive"))
        self._row("python3 -I -S -c pass", _ms(bare))
        self._row(
            "an action: stub, frontend, broker, NAS",
            f"{_ms(stub)}, {stub / bare:.2f} x the bare interpreter",
            f"≤ {MOST_RATIO} x",
            met=stub / bare <= MOST_RATIO,
        )
        self._row("the same, naively: click, lxml, pika", f"{_ms(naive)}, {naive / stub:.1f} x the action")

    def many_actions(self) -> None:
        """Many at once, of the same action and of one that makes a volume."""
        stdin = self._stdin("monitor", self.oned.document(None))
        monitor = Program([f"{CHECKOUT}/datastore/onelun/monitor", "102"], self.variables, stdin)
        burst([monitor] * 20)
        done = burst([monitor] * AT_ONCE)
        met = done.per_second >= LEAST_PER_SECOND and done.p99_s <= MOST_P99_S and not done.failed
        figure = f"{done.per_second:.0f}/s, p99 {done.p99_s:.2f} s, {done.failed} failed"
        goal = f"≥ {LEAST_PER_SECOND:.0f}/s, p99 ≤ {MOST_P99_S:.0f} s, none failed"
        self._row(f"{AT_ONCE} actions at once", figure, goal, met=met)
        makers = []
        for number in range(1000, 1000 + AT_ONCE):
            document = self._stdin(f"mkfs-{number}", self.oned.document(Image(number, "made", 64)))
            makers.append(Program([f"{CHECKOUT}/datastore/onelun/mkfs", str(number)], self.variables, document))
        done = burst(makers)
        self._row(
            f"{AT_ONCE} mkfs at once",
            f"{done.per_second:.0f}/s, p99 {done.p99_s:.2f} s, {done.failed} failed",
            "none failed",
            met=not done.failed,
        )

    def clone_and_attach(self) -> None:
        """A fresh clone of an image of 1 GiB, half of it data, on a node, from exec to exit."""
        path = self.place.path("bench", "half")
        with open(path, "wb") as file:
            for _ in range(512):
                file.write(os.urandom(1 << 20))
            file.truncate(1 << 30)
        self._must(self.oned.datastore("cp", Image(1, "half full", 1024, path=path)))
        times = []
        for vm in range(CLONES):
            at = f"host01:{self.oned.directory(vm)}/disk.0"
            outcome = self.oned.transfer("clone", "frontend:nas1/tank/one-1", at, vm=vm)
            self._must(outcome)
            times.append(outcome.seconds)
        figure = f"{_ms(statistics.median(times))} (worst {_ms(max(times))})"
        self._row(f"fresh clone of 1 GiB on {self.filesystem}, attached on a node", figure)

    def tls(self) -> None:
        """A request and its answer with certificates, beside the same with passwords and without TLS."""
        took = round_trip()
        figure = f"{_ms(took.tls_s)}, {took.tls_s / took.plain_s:.2f} x without TLS ({_ms(took.plain_s)})"
        self._row("a request to an agent and its answer, by TLS", figure)

    def _must(self, outcome) -> None:
        if outcome.status:
            raise SandboxError(outcome.stderr.strip())

    def _stdin(self, name: str, document: str) -> str:
        path = self.place.path("bench", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(base64.b64encode(document.encode()).decode())
        return path

    def _row(self, what: str, figure: str, goal: str = "", *, met: bool | None = None) -> None:
        self.missed += met is False
        told = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[met]
        self.table.add_row(what, figure, goal, told)
        self.console.print(f"  {what}: {figure}", highlight=False, soft_wrap=True)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def _filesystem() -> str | None:
    """A filesystem for the pool that shares blocks between clones, where this machine has one."""
    with open("/proc/filesystems") as file:
        known = file.read().split()
    return next((name for name in ("xfs", "btrfs") if name in known and shutil.which(f"mkfs.{name}")), None)


def main() -> int:
    """The exit status: 1 when a goal is missed."""
    console = Console(width=None if Console().is_terminal else 120)
    filesystem = _filesystem()
    variant = Variant(pool_on=filesystem)
    place = up(None, None, os.getpid(), lambda text: console.print(text, highlight=False), variant)
    try:
        bench = Bench(place, console, filesystem or "the sandbox's filesystem")
        bench.run()
    finally:
        down(place)
    console.print(bench.table)
    console.print(f"{os.cpu_count()} processors; {bench.missed or 'no'} goal{'' if bench.missed == 1 else 's'} missed")
    return 1 if bench.missed else 0


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _stop)
    try:
        sys.exit(main())
    except (SandboxError, RuntimeError) as error:
        sys.exit(f"scripts/bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
