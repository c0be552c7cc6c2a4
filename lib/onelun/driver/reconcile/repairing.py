"""Looking twice, and repairing: each repair is asked of a NAS, which looks at everything that speaks against it once more."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Awaitable, Callable

import msgspec

from onelun.config import Limits
from onelun.deadline import Deadline
from onelun.driver.api import Api
from onelun.driver.asking import Asker
from onelun.driver.document import Vm
from onelun.driver.reconcile.comparing import compare
from onelun.driver.reconcile.differences import REMOVALS, Difference, Repair, Type
from onelun.driver.reconcile.views import View
from onelun.errors import OnelunError, Rejected
from onelun.rpc.message import Settled, ZvolTrashed

log = logging.getLogger(__name__)

# What was in the way of a repair may be what another one ends, or somebody's work of a moment: each is tried twice.
_PASSES = 4
_TRIES = 2


class Outcome(msgspec.Struct, frozen=True):
    """A repair that was tried; `failed` says in a sentence why it was not done."""

    difference: Difference
    failed: str | None = None


class Report(msgspec.Struct, frozen=True):
    """The last view, what was repaired or tried, and what differs still."""

    view: View
    tried: tuple[Outcome, ...]
    left: tuple[Difference, ...]


class Repairing:
    """Compares, and repairs what it may. `view` tells all views anew."""

    def __init__(self, view: Callable[[], Awaitable[View]], limits: Limits, api: Api, asker: Asker) -> None:
        self._view = view
        self._limits = limits
        self._api = api
        self._asker = asker

    async def look(self) -> tuple[View, list[Difference]]:
        """What differs now. What differs is looked at a second time: what only one look shows is somebody's work of this moment.

        Raises what `compare` raises, Unreachable.
        """
        view = await self._view()
        seen = {difference.key for difference in compare(view)}
        if not seen:
            return view, []
        again = await self._view()
        return again, [difference for difference in compare(again) if difference.key in seen]

    async def apply(self, *, at_most: int, images: bool) -> Report:
        """Repair what may be repaired; images that oned does not know only with `images`.

        Raises Rejected, with nothing repaired, when more than `at_most` volumes would go to the trash.
        """
        view, found = await self.look()
        going = {each.key for each in found if each.type in REMOVALS and _may(each, images=images)}
        if len(going) > at_most:
            raise Rejected(
                f"{len(going)} volumes would go to the trash, and at most {at_most} may: look at them without --apply,"
                f" then say --at-most {len(going)}; nothing was repaired"
            )
        tried: dict[tuple[str, str, str], Outcome] = {}
        tries: Counter[tuple[str, str, str]] = Counter()
        for _ in range(_PASSES):
            doing = [each for each in found if _may(each, images=images) and tries[each.key] < _TRIES]
            # What takes a volume away waits until everybody has let go, and for the number that was agreed to.
            doing = [each for each in doing if each.type not in REMOVALS] or [
                each for each in doing if each.key in going
            ]
            if not doing:
                break
            for difference in doing:
                tried[difference.key] = outcome = await self._repair(difference, view)
                tries[difference.key] += 1 if outcome.failed else _TRIES
            view, found = await self.look()
        return Report(view, tuple(tried.values()), tuple(found))

    async def _repair(self, difference: Difference, view: View) -> Outcome:
        assert difference.repair is not None
        try:
            await self._must_be_so_still(difference.repair, view)
            await self._ask(difference, difference.repair)
        except OnelunError as error:
            log.warning("reconcile type=%s what=%s failed=%s", difference.type, difference.what, error)
            return Outcome(difference, error.sentence)
        log.info("reconcile type=%s what=%s host=%s repaired", difference.type, difference.what, difference.host)
        return Outcome(difference)

    async def _ask(self, difference: Difference, repair: Repair) -> None:
        deadline = Deadline.after(self._limits.finish_s)
        reply = await self._asker.ask(repair.nas, repair.request, deadline=deadline)
        if isinstance(reply, Settled):
            reason = reply.failed.get(difference.what) or reply.failed.get(difference.host)
            if reason is not None:
                raise Rejected(reason)
        if isinstance(reply, ZvolTrashed) and not reply.trashed:
            raise Rejected(f"{difference.what} is another volume by now: it stays")

    async def _must_be_so_still(self, repair: Repair, view: View) -> None:
        """Raise Rejected when oned says something else by now than when it was compared."""
        if repair.image is not None and await self._api.image(repair.image) is not None:
            raise Rejected(f"oned knows image {repair.image} by now: its volume stays")
        if repair.vm is not None and _told(await self._api.vm(repair.vm)) != _told(view.oned.vms.get(repair.vm)):
            raise Rejected(f"VM {repair.vm} is no longer as it was when it was compared: nothing was done")


def _may(difference: Difference, *, images: bool) -> bool:
    return difference.repair is not None and (images or difference.type is not Type.IMAGE_UNKNOWN)


def _told(vm: Vm | None) -> object:
    return vm and (
        vm.state,
        vm.lcm_state,
        vm.hostname,
        {disk.id: (disk.source, disk.clone) for disk in vm.disks.values()},
    )
