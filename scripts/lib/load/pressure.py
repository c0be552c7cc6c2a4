"""A NAS that is asked for far more than it has room for: everybody waits, and nobody fails."""

from __future__ import annotations

from functools import partial

from scripts.lib.load.crowd import Crowd
from scripts.lib.load.report import Report
from scripts.lib.load.site import site
from scripts.lib.oned import Image

ROOM = 1


def run(report: Report, at_once: int) -> None:
    """All of it: images made at once, and removed at once, with room for few requests."""
    report.begin("back-pressure")
    with site(report, {"at_once": ROOM}) as at:
        images = [Image(number, "one of many", 16, source=f"nas1/tank/one-{number}") for number in range(at_once)]
        for name in ("mkfs", "rm"):
            crowd = Crowd(at_once)
            crowd.run([(name, partial(at.oned.datastore, name, image)) for image in images])
            crowd.tell(report, f"{at_once} {name} at once, room for {ROOM}")
        waits = at.log("frontend").count(" wait node=nas1 ")
        report.row("requests that were told to come again", str(waits), "some", met=waits > 0)
        report.left(at.left())
