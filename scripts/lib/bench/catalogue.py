"""Rows on two sandboxes side by side, whose NASes differ in how many volumes they have."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterator
from typing import NamedTuple

from scripts.lib.bench.asking import asking
from scripts.lib.bench.row import Found, Part, Row, compared
from scripts.lib.bench.sandbox import Sandbox, must, standing
from scripts.lib.filling import fill
from scripts.lib.oned import Image
from scripts.lib.stopwatch import once
from tests.support.sandbox.place import CLOUD, NAS, POOL
from tests.support.sandbox.startup import Variant

from onelun.config import load
from onelun.rpc.message import ListDisks

FEW, MANY = 10, 10_000
CLONES, ROUNDS, LISTS = 10, 30, 10
MOST, MOST_S = 1.3, 1.0
_SIZE = 64 << 20
_IMAGE = 1


class Both(NamedTuple):
    """A sandbox with many volumes, and one with few."""

    many: Sandbox
    few: Sandbox


@contextlib.contextmanager
def both() -> Iterator[Both]:
    """Both of them, with their volumes and one image."""
    variant = Variant(pool_on=_filesystem())
    with standing(variant) as many, standing(variant) as few:
        for on, count in ((many, MANY), (few, FEW)):
            fill(on.place, {POOL: count})
            must(on.oned.datastore("mkfs", Image(_IMAGE, "bench", _SIZE >> 20)))
        yield Both(many, few)


def _filesystem() -> str | None:
    """One for the pool that shares blocks between clones, where this machine has one."""
    with open("/proc/filesystems") as file:
        known = file.read().split()
    return next((name for name in ("xfs", "btrfs") if name in known and shutil.which(f"mkfs.{name}")), None)


def clone(on: Both) -> Found:
    """A clone of an image, attached on a node, from exec to exit; each is deleted, and not timed for that."""
    taken: dict[Sandbox, list[float]] = {one: [] for one in on}
    for vm in range(CLONES + 1):
        for one in on:
            taken[one].append(_cloned(one, vm))
    return compared(taken[on.many][1:], taken[on.few][1:])


def _cloned(on: Sandbox, vm: int) -> float:
    at = f"host01:{on.oned.directory(vm)}/disk.0"
    took = must(on.oned.transfer("clone", f"frontend:{NAS}/{POOL}/one-{_IMAGE}", at, vm=vm))
    must(on.oned.transfer("delete", at, vm=vm))
    return took


def image(on: Both) -> Found:
    """An image made and removed: nothing of a host is in it."""
    taken: dict[Sandbox, list[float]] = {one: [] for one in on}
    for number in range(2, CLONES + 3):
        for one in on:
            made = Image(number, "short", 64, source=f"{NAS}/{POOL}/one-{number}")
            taken[one].append(must(one.oned.datastore("mkfs", made)) + must(one.oned.datastore("rm", made)))
    return compared(taken[on.many][1:], taken[on.few][1:])


def monitor(on: Both) -> Found:
    """What oned asks of a datastore every few minutes."""
    taken: dict[Sandbox, list[float]] = {one: [] for one in on}
    for _ in range(ROUNDS + 1):
        for one in on:
            taken[one].append(once(one.monitor()))
    return compared(taken[on.many][1:], taken[on.few][1:], met=max(taken[on.many][1:]) <= MOST_S)


def disks(on: Both) -> Found:
    """What the sizes of all VMs' disks cost: it grows with them, and must end in time."""
    ours, beside = asyncio.run(_disks(on))
    return compared(ours, beside, met=max(ours) <= MOST_S)


async def _disks(on: Both) -> tuple[list[float], list[float]]:
    taken: dict[Sandbox, list[float]] = {one: [] for one in on}
    for one in on:
        config = load({"ONELUN_CONFIG": one.place.config("frontend")}).config
        async with asking(config) as ask:
            for _ in range(LISTS + 1):
                began = time.perf_counter()
                await ask(ListDisks(cloud=CLOUD))
                taken[one].append(time.perf_counter() - began)
    return taken[on.many][1:], taken[on.few][1:]


_BESIDE = f"the same with {FEW} volumes"

PART = Part(
    "catalogue",
    both,
    (
        Row("growth-clone", f"`clone`, attached, on a NAS with {MANY:,} volumes", _BESIDE, clone, MOST),
        Row("growth-image", f"`mkfs` and `rm` on a NAS with {MANY:,} volumes", _BESIDE, image, MOST),
        Row("monitor", f"`monitor` with {MANY:,} volumes", _BESIDE, monitor, MOST, f"≤ {MOST_S:g} s"),
        Row("monitor-disks", f"the sizes of {MANY:,} VM disks", f"of {FEW}", disks, goal=f"≤ {MOST_S:g} s"),
    ),
    lambda _on: f"growth: clones of files on {_filesystem() or 'the directory of the sandbox'}",
)
