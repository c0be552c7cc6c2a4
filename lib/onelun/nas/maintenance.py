"""Pools in maintenance: nothing new is placed there, and what is there goes on working.

It is the operator's word, kept in the catalogue, and lasts until the operator takes it back. It is read each time, because
`onelun nas maintenance` writes it beside the agent.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence

import msgspec

from onelun.errors import InMaintenance, ProtocolError, Rejected
from onelun.naming import checked_name
from onelun.nas.catalogue import Catalogue
from onelun.rpc.job import Job
from onelun.rpc.message import MaintenanceIs, SetMaintenance

log = logging.getLogger(__name__)

_KEPT = "maintenance"
_LONGEST = 200


class Maintenance:
    """Which of the NAS's `pools` are in maintenance."""

    def __init__(self, catalogue: Catalogue, pools: Iterable[str]) -> None:
        self._catalogue = catalogue
        self._pools = tuple(pools)

    def of(self, pool: str) -> str | None:
        """The sentence that says why nothing new is placed in that pool; None when it takes what comes."""
        if pool not in (kept := self._kept()):
            return None
        reason = f" ({kept[pool]})" if kept[pool] else ""
        return f"pool {pool} is in maintenance{reason}: nothing new is placed there"

    def must_be_over(self, pool: str) -> None:
        """Raise InMaintenance, before anything was changed, while nothing new is placed in that pool."""
        if (sentence := self.of(pool)) is not None:
            raise InMaintenance(sentence, pool=pool)

    def pools(self) -> dict[str, str]:
        """The pools in maintenance, each with its reason, which may be empty."""
        kept = self._kept()
        return {pool: kept[pool] for pool in self._pools if pool in kept}

    def change(self, pools: Sequence[str], *, on: bool, reason: str = "") -> dict[str, str]:
        """Begin or end the maintenance of these pools (none named: of all), durably, and return those that are in it now.

        Beginning it again changes the reason. Raises Rejected for a pool that is not configured and a reason of more than
        a line; then nothing is changed.
        """
        for pool in pools:
            checked_name(pool, "name of a pool")
            if pool not in self._pools:
                raise Rejected(f"there is no pool {pool} here; there are: {', '.join(self._pools)}")
        if len(reason) > _LONGEST or not reason.isprintable():
            raise Rejected(f"a reason is one line of at most {_LONGEST} characters")
        chosen = dict.fromkeys(pools or self._pools, reason.strip())
        others = {pool: why for pool, why in self.pools().items() if pool not in chosen}
        self._catalogue.set_meta(_KEPT, json.dumps({**others, **(chosen if on else {})}))
        log.info("maintenance pools=%s on=%s reason=%s", ",".join(chosen), on, reason)
        return self.pools()

    async def set(self, request: SetMaintenance, job: Job) -> MaintenanceIs:
        """The request that changes it."""
        return MaintenanceIs(zpools=self.change(request.zpools, on=request.on, reason=request.reason))

    def _kept(self) -> dict[str, str]:
        try:
            return msgspec.json.decode(self._catalogue.meta(_KEPT) or "{}", type=dict[str, str])
        except ValueError as error:
            raise ProtocolError(
                f"the catalogue does not tell which pools are in maintenance ({error}):"
                " move it away, and it is made anew from the pools"
            ) from error
