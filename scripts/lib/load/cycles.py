"""The same disks, attached and detached again and again."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from scripts.lib.load.crowd import Crowd
from scripts.lib.load.memory import grown
from scripts.lib.load.report import Report
from scripts.lib.load.site import HOSTS_OF_ONED, Held, Site, site
from scripts.lib.oned import Image

LANES = 8
MOST_GROWTH = 0.05


def run(report: Report, cycles: int) -> None:
    """All of it. What is held is compared from a tenth of the cycles on: until then caches fill."""
    report.begin("attach and detach")
    with site(report) as at:
        images = [
            Image(lane, f"lane {lane}", 16, persistent=True, source=f"nas1/tank/one-{lane}") for lane in range(LANES)
        ]
        for image in images:
            at.oned.datastore("mkfs", image)
        each = max(1, cycles // LANES)
        crowd, parts = Crowd(1), (max(2, each // 10), each)
        done, before = 0, at.held()
        firsts: list[float] = []
        for number, until in enumerate(parts):
            with ThreadPoolExecutor(LANES) as threads:
                ended = list(threads.map(partial(_lane, at, first=done, until=until), images))
            crowd.seconds += [seconds for lane in ended for seconds in lane.seconds]
            crowd.failures += [failure for lane in ended for failure in lane.failures]
            report.say(f"{LANES * until} of {LANES * each} cycles, {len(crowd.failures)} failed")
            if number == 0:
                done, before, firsts = until, at.held(), list(crowd.seconds)
        crowd.tell(report, f"{LANES * each} cycles (ln, mvds), {LANES} beside each other")
        _held(report, before, at.held())
        latest = crowd.seconds[-len(firsts) :]
        ratio = statistics.median(latest) / statistics.median(firsts)
        report.row("the last tenth's time by the first's", f"{ratio:.2f}")
        crowd.run([("rm", partial(at.oned.datastore, "rm", image)) for image in images])
        for image in images:
            crowd.run(
                [
                    ("delete", partial(at.oned.transfer, "delete", at.at(host, image.id), vm=image.id, of_system=True))
                    for host in HOSTS_OF_ONED
                ]
            )
        report.left(at.left())


def _lane(at: Site, image: Image, *, first: int, until: int) -> Crowd:
    """The cycles of one disk, by turns on both hosts."""
    lane = Crowd(1)
    for number in range(first, until):
        disk = at.at(HOSTS_OF_ONED[number % 2], image.id, 0)
        lane.run([("ln", partial(at.oned.transfer, "ln", f"frontend:{image.source}", disk, vm=image.id))])
        lane.run([("mvds", partial(at.oned.transfer, "mvds", disk, image.source, vm=image.id))])
    return lane


def _held(report: Report, before: Held, after: Held) -> None:
    more = {role: after.files[role] - number for role, number in before.files.items() if after.files[role] > number + 8}
    files = ", ".join(f"{role} {number}" for role, number in after.files.items())
    report.row("open files of each role at the end", files, "at most 8 more than at first", met=not more)
    processes = {name: number - before.processes[name] for name, number in after.processes.items()}
    extra = {name: number for name, number in processes.items() if number > 0}
    report.row("processes more than at first", str(extra or "none"), "none", met=not extra)
    grown(report, before.memory, after.memory, MOST_GROWTH)
