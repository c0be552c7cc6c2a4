"""What every connector does. This file is the specification; tests/contract runs one suite on every implementation.

A connector makes a block device of one target, and proves that it is the right one before anybody sees it. All methods
may be repeated. What it starts to carry data outlives the agent and is found again by the next one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import msgspec

from onelun.model import Portal


class Export(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a host needs to know to connect one target.

    Without `user` the target asks for no secret. `uuid` and `size_bytes` are what the device must say of itself; without
    them (a caller of the bare protocol) nothing is compared. Without `lun` it is number 1, or else 0.
    """

    iqn: str
    portal: Portal
    initiator: str
    user: str | None = None
    secret: str | None = None
    uuid: str | None = None
    size_bytes: int | None = None
    readonly: bool = False
    lun: int | None = None

    def __repr__(self) -> str:
        return f"Export({self.iqn!r} at {self.portal} for {self.initiator!r})"


class Connected(msgspec.Struct, frozen=True):
    """One target that this host is connected to. `alive` is false when its device is of no use any more."""

    iqn: str
    device: str
    alive: bool = True


class Connector(ABC):
    """The connected targets of one host."""

    @abstractmethod
    async def check(self) -> list[str]:
        """What stands in the way of connecting, each as one sentence that says what to do; changes nothing."""

    @abstractmethod
    async def settle(self) -> None:
        """Clear away what an agent that was killed while it connected left half-made. To be called before the rest.

        What is connected stays, and so does what somebody has open. What does not go is logged, and left to the next time.
        """

    @abstractmethod
    async def connect(self, export: Export) -> str:
        """Connect the target and return the path of its block device, whose identity has been verified.

        Connected already and healthy: the identity is verified again and the same device returned; dead: it is made anew.
        Ends within 30 s. Raises Unreachable (no route, no such portal), Rejected (login refused: initiator or secret),
        NotFound (no such target or LUN), Conflict (the device is another volume, or has another size); what was not
        connected before is not then. A device that is in use is never cut off.
        """

    @abstractmethod
    async def grow(self, iqn: str, size_bytes: int) -> str:
        """Let the connected device see that its LUN has become `size_bytes` long; return the device's path.

        That size already: nothing. Raises NotFound when the target is not connected, Busy when this connector cannot do it
        under an open device, Conflict when the LUN has another size.
        """

    @abstractmethod
    async def disconnect(self, iqn: str, *, force: bool = False) -> None:
        """Flush and remove the device and its session, and read back that none is left. Absent: nothing.

        Raises Busy while somebody has the device open, and CommandFailed when the flush fails; then nothing was removed.
        With `force` it goes on all the same.
        """

    @abstractmethod
    async def connections(self) -> list[Connected]:
        """All targets of ours that this host is connected to, including those of an earlier agent's life."""

    async def tend(self) -> None:  # noqa: B027
        """Help along what should have come back by itself and did not. To be called every few seconds.

        What works is not touched, and a repeat does nothing more. Raises nothing. A connector whose connections need no
        help leaves it as it is.
        """
