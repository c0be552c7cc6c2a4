"""The metadata areas of a volume group: whether all of them hold the state that a report was of.

Each commit of LVM's gives a group's metadata the next number, in every area that is in use. So while all areas hold the number
that a report tells, the report is true, whoever may have changed the group; and when they hold the next one after a command of
ours that makes one commit, nobody else has changed it. A look at them costs a hundredth of a command of LVM's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from onelun.calls import Calls
from onelun.errors import OnelunError
from onelun.nas.backends.lvm import seqno
from onelun.nas.backends.lvm.tool import Lvm
from onelun.numbers import is_number

log = logging.getLogger(__name__)

COLUMNS = "vg_uuid,vg_seqno,vg_mda_used_count"
_LOOK_S = 10.0
# Which disks a group has is asked again no sooner than this after an answer that did not fit.
_AGAIN_S = 60.0


# The checksums of a state in each area: a backup of the metadata that is restored may bring a number back, and other content.
Marks = tuple[int, ...]


class State(NamedTuple):
    """One state of a group's metadata: the group's UUID, its number, and how many areas hold it."""

    group: str
    number: int
    areas: int

    def after(self, commits: int) -> State:
        """The state after so many commits that change no disk of the group."""
        return self._replace(number=self.number + commits)


def state_of(row: Mapping[str, str]) -> State | None:
    """The state that a row with COLUMNS tells; None when it tells none."""
    number, areas = row["vg_seqno"], row["vg_mda_used_count"]
    if not is_number(number) or not is_number(areas) or not int(areas):
        return None
    return State(row["vg_uuid"], int(number), int(areas))


class Areas:
    """The areas of the group that `lvm` works on."""

    def __init__(self, lvm: Lvm, calls: Calls) -> None:
        self._lvm = lvm
        self._calls = calls
        self._disks: tuple[str, ...] = ()
        self._asked_at: float | None = None

    async def look(self, state: State) -> Marks | None:
        """By what that state is known when all areas of the group hold it now; None, too, when that cannot be seen."""
        if not self._disks:
            return None
        called = f"a look at the disks of {self._lvm.vg}"
        try:
            told = await self._calls.make(seqno.__file__, *self._disks, timeout_s=_LOOK_S, called=called)
            held = msgspec.json.decode(told, type=list[tuple[str, int, int]])
        except (OnelunError, OSError, msgspec.DecodeError) as error:
            # LVM itself says what is wrong with them.
            log.info("look vg=%s failed=%s", self._lvm.vg, error)
            self._disks = ()
            return None
        # Fewer than the group has: another disk may hold a later one.
        agree = [(group, number) for group, number, _ in held] == [(state.group, state.number)] * state.areas
        return tuple(checksum for _, _, checksum in held) if agree else None

    async def look_anew(self, state: State) -> Marks | None:
        """Like `look`, of a state just reported: where it is not held, the disks that the group has now are asked for."""
        if (marks := await self.look(state)) is not None:
            return marks
        if self._asked_at is not None and time.monotonic() - self._asked_at < _AGAIN_S:
            return None
        self._asked_at = time.monotonic()
        try:
            rows = await self._lvm.report("vgs", "pv_name", self._lvm.vg)
        except OnelunError as error:
            log.info("look vg=%s failed=%s", self._lvm.vg, error)
            return None
        self._disks = tuple(sorted({row["pv_name"] for row in rows if row["pv_name"].startswith("/")}))
        return await self.look(state)
