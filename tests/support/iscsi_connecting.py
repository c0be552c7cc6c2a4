"""Connecting by the kernel's initiator, looking at the session, and standing in its way."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time

import msgspec
from tests.support.cable import Cable
from tests.support.iscsi import LIMIT_S
from tests.support.iscsi_open import iscsid_pid, session_places, told

from onelun.compute.connectors.base import Export
from onelun.compute.connectors.iscsi.connector import IscsiConnector

FOREIGN = "iqn.2001-04.com.example:foreign"


def by(cable: Cable, export: Export) -> Export:
    return msgspec.structs.replace(export, portal=cable.portal)


async def open_up(connector: IscsiConnector, export: Export) -> tuple[str, int]:
    device = await connector.connect(export)
    return device, os.open(device, os.O_RDWR)


async def comes(*wanted: object, within_s: float = LIMIT_S) -> None:
    """Wait until every condition holds."""
    until = time.monotonic() + within_s
    while not all(met() for met in wanted):  # type: ignore[operator]
        assert time.monotonic() < until, "it did not come about in time"
        await asyncio.sleep(0.1)


def state(export: Export) -> str:
    """Of the export's session, in the kernel's word."""
    for place in session_places():
        if told(place, "targetname") == export.iqn:
            return told(place, "state")
    return "gone"


class paused:  # noqa: N801 - it reads as a word in `with`
    """iscsid, or another process, does nothing for a while, as when it hangs."""

    def __init__(self, pid: int | None = None) -> None:
        self.given = pid

    def __enter__(self) -> None:
        pid = self.given or iscsid_pid()
        assert pid is not None
        self.pid = pid
        os.kill(pid, signal.SIGSTOP)

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGCONT)


def groups(*options: str) -> list[str]:
    """The volume groups that LVM of this host sees."""
    argv = ("vgs", "--noheadings", "-o", "vg_name", *options)
    return subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=True).stdout.split()


def iscsiadm(*args: str, check: bool = True) -> str:
    done = subprocess.run(["iscsiadm", *args], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0 or not check, f"{args}: {done.stderr}"
    return done.stdout
