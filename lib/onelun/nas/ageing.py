"""How old is old enough for the trash to go, also when the wall clock jumps ahead.

What is in the trash says when it came there by the wall clock. A clock that is set a year ahead would make all of it old at
once. So the agent remembers how far the wall clock is from the time since the boot, which never jumps: after a jump ahead the
trash ages by the clock as it was, until it has been there for its time whatever the clock says.
"""

from __future__ import annotations

import logging
import time

import msgspec

from onelun.nas.catalogue import Catalogue

log = logging.getLogger(__name__)

_META = "clock"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"
# What NTP sets right at a step, and no more.
_TOLERANCE_S = 300.0


class _Clock(msgspec.Struct, frozen=True):
    """`offset_s` is the wall clock less the time since the boot; `doubted_s` (since the boot) is when it was first ahead."""

    boot: str
    offset_s: float
    doubted_s: float | None = None


class Ageing:
    """Tells from which moment on what is in the trash stays."""

    def __init__(self, catalogue: Catalogue, trash_s: float) -> None:
        self._catalogue = catalogue
        self._trash_s = trash_s

    def older_than(self) -> float:
        """What came into the trash before this moment (seconds since the epoch) has been there for its time.

        A jump across a reboot is not seen. Raises sqlite3.Error when the catalogue cannot be written.
        """
        now, since_boot = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
        known = self._known()
        clock = _Clock(_boot(), now - since_boot)
        ahead_s = clock.offset_s - known.offset_s if known is not None and known.boot == clock.boot else 0.0
        if known is None or ahead_s <= _TOLERANCE_S:
            ahead_s = 0.0
        elif known.doubted_s is None:
            log.warning("trash clock=ahead seconds=%.0f: nothing goes for it in %.0f s", ahead_s, self._trash_s)
            clock = msgspec.structs.replace(known, doubted_s=since_boot)
        elif since_boot - known.doubted_s < self._trash_s:
            clock = known
        else:
            ahead_s = 0.0
        if clock != known:
            self._catalogue.set_meta(_META, msgspec.json.encode(clock).decode())
        return now - ahead_s - self._trash_s

    def _known(self) -> _Clock | None:
        text = self._catalogue.meta(_META)
        return msgspec.json.decode(text, type=_Clock) if text else None


def _boot() -> str:
    with open(_BOOT_ID) as file:
        return file.read().strip()
