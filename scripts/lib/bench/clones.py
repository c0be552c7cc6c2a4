"""Rows of thin clones, each engine in a throw-away guest with a disk of 3 TiB that takes no space."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from functools import partial

from scripts.lib.bench.lab import BUILD_S, IN_GUEST, told
from scripts.lib.bench.row import Found, Part, Row, compared

GUEST_S = 700
MOST_SIZE = 1.3


@contextlib.contextmanager
def cloned(kind: str, engine: str) -> Iterator[dict]:
    """What a guest of that kind measured."""
    told("build", kind, limit_s=BUILD_S)
    script = f"modprobe -q zfs; exec python3 {IN_GUEST}/in_guest_clones.py {engine}"
    argv = ("--disk", "3T", "--memory", "768", "--limit", str(GUEST_S), kind, "--", "sh", "-c", script)
    yield json.loads(told("run", *argv, limit_s=GUEST_S + 120))


def _by_hand(found: dict) -> Found:
    return compared(found["1 GiB"], found["by hand"])


def _size(found: dict) -> Found:
    return compared(found["1 TiB"], found["1 GiB"])


def _part(kind: str, engine: str, hand: str) -> Part[dict]:
    rows = (
        Row(f"clone-{engine}", f"a clone of 1 GiB on the NAS, {engine}, visible", hand, _by_hand),
        Row(f"clone-size-{engine}", f"a clone of 1 TiB, {engine}", "of 1 GiB", _size, MOST_SIZE),
    )
    return Part(f"clones, {engine}", partial(cloned, kind, engine), rows, lambda found: f"clones: {found['about']}")


PARTS = (_part("uml", "lvm", "`lvcreate -s`"), _part("qemu", "zfs", "`zfs snapshot`, `zfs clone`"))
