"""Rows on a sandbox: what an action costs, many at once, and an image that is filled."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import statistics
import sys
from collections.abc import Iterator

from scripts.lib.bench.asking import asking
from scripts.lib.bench.row import Found, Part, Ratio, Row, compared, ratio_of, seconds
from scripts.lib.oned import CHECKOUT, Image, Oned, Outcome
from scripts.lib.stopwatch import Burst, Program, burst, once, pairs
from tests.support.sandbox.__main__ import environment
from tests.support.sandbox.place import Place, SandboxError
from tests.support.sandbox.startup import PLAIN, Variant, up
from tests.support.sandbox.teardown import down, left_of

from onelun.config import load
from onelun.lun import Lun
from onelun.model import Owner
from onelun.rpc.message import AbortImport, ImportZvol, ZvolImporting

ROUNDS, BURSTS, FILLS, AT_ONCE = 60, 5, 5, 200
MOST_RATIO, LEAST_PER_SECOND, MOST_P99_S, MOST_CP = 1.5, 100.0, 2.0, 1.3
BARE = ("/usr/bin/python3", "-I", "-S", "-c", "pass")
SIZE_MB, FULL_MB = 1024, 512


class Sandbox:
    """A sandbox that is up, and oned's calls on it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.oned = Oned("7.5", place.datastores, environment(place), safe_dirs=place.dir)
        self.variables = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **environment(place)}
        os.makedirs(place.path("bench"), exist_ok=True)

    def monitor(self, *command: str) -> Program:
        """`monitor` of the datastore, by its script or another command."""
        path = self.stdin("monitor", self.oned.document(None))
        return Program([*(command or (f"{CHECKOUT}/datastore/onelun/monitor",)), "102"], self.variables, path)

    def bare(self) -> Program:
        """The interpreter that every action starts."""
        return Program(BARE, self.variables)

    def stdin(self, name: str, document: str) -> str:
        """A file with the document as oned gives it."""
        path = self.place.path("bench", name)
        with open(path, "w") as file:
            file.write(base64.b64encode(document.encode()).decode())
        return path


@contextlib.contextmanager
def standing(variant: Variant = PLAIN) -> Iterator[Sandbox]:
    """A sandbox of our own. Nothing of it is left."""
    place = up(None, None, os.getpid(), lambda _text: None, variant)
    try:
        yield Sandbox(place)
    finally:
        down(place)
    if left := left_of(place):
        raise SandboxError(f"left behind: {'; '.join(left)}")


def must(outcome: Outcome) -> float:
    """Its seconds. Raises SandboxError with what it said when it failed."""
    if outcome.status:
        raise SandboxError(outcome.stderr.strip())
    return outcome.seconds


def interpreter(on: Sandbox) -> Found:
    """An action whose NAS answers at once."""
    return compared(*pairs(on.monitor(), on.bare(), ROUNDS))


def naive(on: Sandbox) -> Found:
    """The same as one would write it first."""
    other = on.monitor(sys.executable, f"{CHECKOUT}/scripts/lib/naive_action.py")
    return compared(*pairs(on.monitor(), other, ROUNDS // 4))


def at_once(on: Sandbox) -> Found:
    """As many of the same action."""
    burst([on.monitor()] * 20)
    runs = [(burst([on.monitor()] * AT_ONCE), burst([on.bare()] * AT_ONCE)) for _ in range(BURSTS)]
    ours, beside = zip(*runs, strict=True)
    per_second, p99_s, failed = _summed(ours)
    met = per_second >= LEAST_PER_SECOND and p99_s <= MOST_P99_S and not failed
    return Found(_told(ours), _told(beside), _ratio(ours, beside), met)


def mkfs_at_once(on: Sandbox) -> Found:
    """As many that make a volume."""
    ours, beside = [], []
    for first in range(1000, 1000 * (BURSTS + 1), 1000):
        images = [Image(number, "made", 64) for number in range(first, first + AT_ONCE)]
        makers = [
            Program(
                [f"{CHECKOUT}/datastore/onelun/mkfs", str(image.id)],
                on.variables,
                on.stdin(f"mkfs-{image.id}", on.oned.document(image)),
            )
            for image in images
        ]
        ours.append(burst(makers))
        beside.append(burst([on.monitor()] * AT_ONCE))
    return Found(_told(ours), _told(beside), _ratio(ours, beside), met=not _summed(ours)[2])


def _summed(bursts: list[Burst] | tuple[Burst, ...]) -> tuple[float, float, int]:
    """Medians per second and of the 99th percentile, and how many failed in all."""
    per_second = statistics.median(each.per_second for each in bursts)
    return per_second, statistics.median(each.p99_s for each in bursts), sum(each.failed for each in bursts)


def _told(bursts: list[Burst] | tuple[Burst, ...]) -> str:
    per_second, p99_s, failed = _summed(bursts)
    return f"{per_second:.0f}/s, p99 {seconds(p99_s)}, {failed or 'none'} failed"


def _ratio(ours: list[Burst] | tuple[Burst, ...], beside: list[Burst] | tuple[Burst, ...]) -> Ratio:
    return ratio_of([each.total_s for each in ours], [each.total_s for each in beside])


def cp(on: Sandbox) -> Found:
    """An image of 1 GiB, half of it data, and the same qemu-img by hand into a LUN that the NAS offers the same way."""
    path = on.place.path("bench", "half")
    with open(path, "wb") as file:
        for _ in range(FULL_MB):
            file.write(os.urandom(1 << 20))
        file.truncate(SIZE_MB << 20)
    ours, beside = [], []
    for number in range(1, FILLS + 2):
        ours.append(must(on.oned.datastore("cp", Image(number, "half full", SIZE_MB, path=path))))
        beside.append(asyncio.run(_by_hand(on, path, f"by-hand-{number}")))
    # The first round fills caches.
    return compared(ours[1:], beside[1:])


async def _by_hand(on: Sandbox, path: str, name: str) -> float:
    config = load({"ONELUN_CONFIG": on.place.config("frontend")}).config
    initiator = config.frontend.initiator
    wanted = ImportZvol(zvol=name, zpool="tank", size_bytes=SIZE_MB << 20, owner=Owner("plain"), initiator=initiator)
    async with asking(config) as ask:
        told = await ask(wanted)
        assert isinstance(told, ZvolImporting)
        lun = Lun(told.iqn, told.address, told.port, told.user, told.secret, told.lun, initiator)
        with lun.secret_file() as secret:
            os.set_inheritable(secret, True)  # noqa: FBT003 - os takes it by position alone
            argv = ["/usr/bin/qemu-img", "convert", "-n", "-t", "writeback", "--target-is-zero", "-f", "raw", path]
            argv += ["--object", f"secret,id=s0,file=/proc/self/fd/{secret}", "--target-image-opts", lun.options("s0")]
            try:
                return await asyncio.to_thread(once, Program(argv, on.variables))
            finally:
                await ask(AbortImport(zpool="tank", uuid=told.uuid))


PART = Part(
    "sandbox",
    standing,
    (
        Row("action", "an action: stub, frontend, broker, NAS", "`python3 -I -S -c pass`", interpreter, MOST_RATIO),
        Row("naive", "the same action", "written naively: click, lxml, pika, no daemon", naive),
        Row(
            "at-once",
            f"{AT_ONCE} actions at once",
            f"{AT_ONCE} bare interpreters at once",
            at_once,
            goal=f"≥ {LEAST_PER_SECOND:.0f}/s, p99 ≤ {MOST_P99_S:.0f} s, none failed",
        ),
        Row(
            "mkfs-at-once",
            f"{AT_ONCE} `mkfs` at once, each a new volume",
            f"{AT_ONCE} actions that make nothing",
            mkfs_at_once,
            goal="none failed",
        ),
        Row("cp", "`cp` of 1 GiB, half of it data", "the same `qemu-img convert` into such a LUN", cp, MOST_CP),
    ),
)
