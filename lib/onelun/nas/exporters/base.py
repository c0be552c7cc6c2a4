"""What every exporter does. This file is the specification; tests/contract runs one suite on every implementation.

One target per attachment: its IQN ends in the epoch, it is bound to one initiator by name, and has an account of its
own. Targets that are not named like ours are never listed, changed or removed. All methods may be repeated.
Raised anywhere: Unreachable when no target daemon takes requests, Stalled when it took one and does not answer in time,
CommandFailed when it refuses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from onelun.model import Portal, Target


class Exported(msgspec.Struct, frozen=True):
    """One target of ours as the target daemon tells it. `sessions` are the initiators that are logged in.

    `initiators` may log in: nobody while it is half made.
    """

    iqn: str
    device: str | None
    initiators: tuple[str, ...]
    sessions: tuple[str, ...]


class Exporter(ABC):
    """The targets of one target daemon."""

    portal: Portal
    lun: int
    """The number of every target's one LUN."""
    grows_in_use = True
    """Whether `grow` works under a session; where not, whoever is logged in must log out first."""

    lock: str | None = None
    """The file that the one agent of this NAS's name keeps locked, for each target daemon one; None for a daemon of its own."""

    @abstractmethod
    async def check(self) -> list[str]:
        """What stands in the way of exporting, each as one sentence that says what to do; changes nothing."""

    @abstractmethod
    async def export(self, target: Target) -> None:
        """Make `target` exist exactly so; a half-made one is completed, and a complete one with a session is left as it is.

        The LUN has the number `lun`, its size is checked against `size_bytes`, its SCSI serial is the UUID, a discard
        reaches the storage, and a flush is answered only after stable storage has the data. Raises Conflict when a target
        of that IQN exists for another device or initiator.
        """

    @abstractmethod
    async def grow(self, target: Target) -> None:
        """Let the LUN be as long as the device has become (`size_bytes`), with its sessions logged in. That size: nothing.

        Raises NotFound without such a target, Conflict when the device has another size, Busy when this exporter cannot do
        it under a session.
        """

    @abstractmethod
    async def unexport(self, iqn: str) -> None:
        """Fence: end every session of the target, remove it and its account, and read back that none is left.

        Absent: nothing. When it returns, no write of that epoch can reach the volume any more. Raises Stalled when the
        daemon does not let go in time.
        """

    @abstractmethod
    async def exports(self) -> dict[str, Exported]:
        """All targets of ours, by IQN, compared whole."""
