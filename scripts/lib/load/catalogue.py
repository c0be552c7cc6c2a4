"""The same actions on a NAS with thousands of volumes and on one with none, in turn: what disturbs one disturbs the other.

The volumes are written into the pools as the agent would write them, and their disks into its catalogue, while it is down.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from functools import partial

from scripts.lib.filling import fill
from scripts.lib.load.crowd import Action
from scripts.lib.load.report import Report
from scripts.lib.load.site import Site, site
from scripts.lib.oned import Image, Outcome
from tests.support.sandbox.broker import has_queue
from tests.support.sandbox.place import CLOUD, NAS, POOL, SPARE, Place
from tests.support.sandbox.processes import recorded, wait_until
from tests.support.sandbox.startup import start_role

from onelun.config import load
from onelun.deadline import Deadline
from onelun.rpc.client import Client
from onelun.rpc.link import Link
from onelun.rpc.message import ListDisks
from onelun.rpc.schema import Request

MOST_RATIO, MOST_LOOK_S = 1.5, 1.0
LIST_DISKS, DELETE_ABSENT = "list_disks, which tm/monitor asks each NAS", "delete of a disk that is nowhere"
# What tells of every disk, or looks for one that no placement tells of, may take longer with more of them.
LOOK_AT_ALL = ("datastore/monitor", "tm/monitor", LIST_DISKS, DELETE_ABSENT)
_WAIT_S = 20
_START_S = 300

# By action: how long each took, and how long the NAS agent had a processor meanwhile.
Times = dict[str, list[tuple[float, float]]]


def run(report: Report, volumes: int, in_pool: int, repeats: int) -> None:
    """All of it."""
    report.begin("large catalogue")
    with site(report) as empty, site(report) as full:
        _end(full.place)
        fill(full.place, {POOL: min(volumes, in_pool), SPARE: max(0, volumes - in_pool)})
        started = time.monotonic()
        start_role(full.place, NAS)
        url = full.oned.environment["ONELUN_AMQP_URL"]
        wait_until(partial(has_queue, url, NAS), f"{NAS} should answer", _START_S)
        report.row(f"start of a NAS with {volumes} volumes, until it answers", f"{time.monotonic() - started:.1f} s")
        times: dict[str, Times] = {"empty": defaultdict(list), "full": defaultdict(list)}
        for number in range(1, repeats + 2):
            for name, at in (("empty", empty), ("full", full)):
                for action, took in _round(at, number):
                    # The first round fills caches.
                    if number > 1:
                        times[name][action].append(took)
            report.say(f"round {number} of {repeats + 1}")
        report.row("volumes in all, and in the pool that is used", f"{volumes}, {in_pool}")
        _tell(report, times["empty"], times["full"])


def _tell(report: Report, empty: Times, full: Times) -> None:
    for action, found in full.items():
        (slow, worked), (quick, worked_before) = (
            (statistics.median(each[0] for each in took), statistics.median(each[1] for each in took))
            for took in (found, empty[action])
        )
        figure = f"{1000 * slow:.0f} ms; {1000 * quick:.0f} ms with none; ratio {slow / quick:.2f}"
        figure += f"; of the NAS agent's processor {1000 * worked:.1f} ms; {1000 * worked_before:.1f} ms"
        if action in LOOK_AT_ALL:
            report.row(action, figure, f"< {MOST_LOOK_S:g} s", met=slow < MOST_LOOK_S)
        else:
            report.row(action, figure, f"ratio ≤ {MOST_RATIO}", met=slow / quick <= MOST_RATIO)


def _actions(at: Site, number: int) -> Iterator[Action]:
    """One after the other, from nothing to nothing."""
    datastore, transfer = at.oned.datastore, at.oned.transfer
    image = Image(number, "small", 16, source=f"{NAS}/{POOL}/one-{number}")
    disk, moved = at.at("host01", number, 0), at.at("host02", number, 0)
    yield "datastore/monitor", partial(datastore, "monitor", None)
    yield "tm/monitor", at.oned.monitor_system
    yield LIST_DISKS, partial(_list_disks, at)
    yield "mkfs", partial(datastore, "mkfs", image)
    yield "clone", partial(transfer, "clone", f"frontend:{image.source}", disk, vm=number)
    yield "mv", partial(transfer, "mv", disk, moved, vm=number)
    yield "delete", partial(transfer, "delete", moved, vm=number)
    yield "ln", partial(transfer, "ln", f"frontend:{image.source}", disk, vm=number)
    yield "mvds", partial(transfer, "mvds", disk, image.source, vm=number)
    yield DELETE_ABSENT, partial(transfer, "delete", disk, vm=number)
    yield "rm", partial(datastore, "rm", image)


def _list_disks(at: Site) -> Outcome:
    """Ask the NAS for all disks, which an action does only where OpenNebula's own scripts are."""
    started = time.monotonic()
    asyncio.run(_ask(at, ListDisks(cloud=CLOUD)))
    return Outcome(0, "", "", time.monotonic() - started)


async def _ask(at: Site, request: Request) -> None:
    config = load(at.oned.environment).config
    link = Link(config.broker.url, name="load", exchange=config.broker.exchange)
    client = Client(link, config.limits)
    await link.open()
    try:
        await client.ask(NAS, request, deadline=Deadline.after(_WAIT_S))
    finally:
        await client.close()
        await link.close()


def _round(at: Site, number: int) -> Iterator[tuple[str, tuple[float, float]]]:
    for name, action in _actions(at, number):
        before = at.worked_s(NAS)
        outcome = action()
        if outcome.status:
            raise RuntimeError(f"{name}: {outcome.stderr.strip()}")
        yield name, (outcome.seconds, at.worked_s(NAS) - before)


def _end(place: Place) -> None:
    """End the agent."""
    agent = recorded(place, NAS)
    assert agent is not None
    agent.kill(signal.SIGTERM)
    wait_until(lambda: not agent.alive(), f"{NAS} should end", _WAIT_S)
