"""Rounds of many actions at once, of all kinds: each place in the crowd lives VMs' lives, and no two are equally far."""

from __future__ import annotations

from functools import partial

from scripts.lib.load.crowd import Action, Crowd
from scripts.lib.load.report import Report
from scripts.lib.load.site import HOSTS_OF_ONED, Site, site
from scripts.lib.oned import Image

SIZE_MB = 16
_APART = 100_000


def life_of(at: Site, number: int) -> list[Action]:
    """A VM's life with one disk, from its image to nothing; the disk is a clone, or for odd numbers the image itself."""
    transfer, datastore = at.oned.transfer, at.oned.datastore
    persistent = number % 2 == 1
    source = f"nas1/tank/one-{number}"
    image = Image(number, f"of {number}", SIZE_MB, persistent=persistent, source=source)
    here, there = HOSTS_OF_ONED if number % 4 < 2 else HOSTS_OF_ONED[::-1]
    disk_here, disk_there = (at.at(host, number, 0) for host in (here, there))
    move = partial(transfer, "mv", disk_here, disk_there, vm=number)
    end = ("mvds", disk_there, source) if persistent else ("delete", disk_there)
    begin = "ln" if persistent else "clone"
    return [
        ("mkfs", partial(datastore, "mkfs", image)),
        (begin, partial(transfer, begin, f"frontend:{source}", disk_here, vm=number)),
        ("mv", move),
        (end[0], partial(transfer, *end, vm=number)),
        *(
            ("delete", partial(transfer, "delete", at.at(host, number), vm=number, of_system=True))
            for host in (here, there)
        ),
        ("rm", partial(datastore, "rm", image)),
    ]


class Slot:
    """One place in the crowd. It asks for the datastore's capacity until its first life begins."""

    def __init__(self, at: Site, number: int) -> None:
        self._at = at
        self._number = number
        self._left: list[Action] = []
        self._idle = number % len(life_of(at, 0))

    def next(self) -> Action:
        """What it does in this round."""
        if self._idle:
            self._idle -= 1
            return "monitor", partial(self._at.oned.datastore, "monitor", None)
        if not self._left:
            self._number += _APART
            self._left = life_of(self._at, self._number)
        return self._left.pop(0)

    def last(self) -> Action | None:
        """What is still to be done of the life that it has begun; None at its end."""
        return self._left.pop(0) if self._left else None


def run(report: Report, rounds: int, at_once: int) -> None:
    """All of it."""
    report.begin("mixed actions")
    with site(report) as at:
        crowd, slots = Crowd(at_once), [Slot(at, number) for number in range(at_once)]
        for number in range(rounds):
            crowd.run([slot.next() for slot in slots])
            report.say(f"round {number + 1} of {rounds}, {len(crowd.failures)} failed")
        crowd.tell(report, f"{rounds} rounds of {at_once} at once ({', '.join(sorted(crowd.names))})")
        ending = Crowd(at_once)
        while actions := [action for slot in slots if (action := slot.last()) is not None]:
            ending.run(actions)
        ending.tell(report, "the rest of the lives that were begun")
        report.left(at.left())
