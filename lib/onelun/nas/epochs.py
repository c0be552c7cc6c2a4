"""Numbers of attachments, never used twice, even when the catalogue is lost.

Each start of the agent takes a new serial number, which every pool keeps; an epoch is a serial number followed by a count.
A catalogue that is older than a pool thus shows itself, and its epochs lie in the past.
"""

from __future__ import annotations

from collections.abc import Iterable

from onelun.errors import Conflict
from onelun.nas.backends.base import Backend
from onelun.nas.catalogue import Catalogue
from onelun.numbers import number_in

# Epochs of one serial number; the last one of a life takes a new serial number first.
_PER_SERIAL = 100_000
# Targets of earlier serial numbers have secrets of 64 bits (decision 0006). No agent has been started so often.
_LONG_SECRETS_FROM = 100_000_000


def has_long_secret(epoch: int) -> bool:
    """Whether the attachment of that number was made since secrets are long; hosts keep the one that they logged in with."""
    return epoch >= _LONG_SECRETS_FROM * _PER_SERIAL


class Epochs:
    """The source of epochs of one agent's life."""

    def __init__(self, catalogue: Catalogue, pools: Iterable[Backend]) -> None:
        self._catalogue = catalogue
        self._pools = list(pools)
        self._serial = 0
        self._count = 0

    async def begin(self) -> bool:
        """Take a new serial number; return whether the catalogue is older than a pool, or lost.

        Raises Conflict for a pool that is new, though the catalogue knows one of that name: its filesystem is not mounted.
        """
        known = number_in(self._catalogue.meta("serial") or "0", "the serial number in the catalogue")
        held = [await pool.serial() for pool in self._pools]
        for pool, serial in zip(self._pools, held, strict=True):
            if serial == 0 and self._catalogue.meta(f"pool {pool.pool}"):
                raise Conflict(
                    f"pool {pool.pool} was in use and is empty now: mount its filesystem; "
                    "if it is meant to be new, give it another name",
                    pool=pool.pool,
                )
        await self._renew(max(known, *held, _LONG_SECRETS_FROM - 1))
        for pool in self._pools:
            self._catalogue.set_meta(f"pool {pool.pool}", "known")
        return max(held) > known

    async def next(self) -> int:
        """A number that no attachment has had."""
        self._count += 1
        if self._count >= _PER_SERIAL:
            await self._renew(self._serial)
            self._count = 1
        return self._serial * _PER_SERIAL + self._count

    async def _renew(self, serial: int) -> None:
        serial += 1
        for pool in self._pools:
            await pool.set_serial(serial)
        self._catalogue.set_meta("serial", str(serial))
        self._serial = serial
        self._count = 0
