"""What is compared: oned's view, each NAS's and each host's, as they were told. A view that is not there is a sentence why."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from onelun.driver.document import Vm
from onelun.driver.registered import Registered
from onelun.rpc.message import StockIs


class Device(msgspec.Struct, frozen=True):
    """A target that a host is connected to. `alive`: its device works."""

    target: str
    nas: str | None
    alive: bool


class HostView(msgspec.Struct, frozen=True):
    """What a host has. `links` has each `disk.N` that was looked for and is there, with its text, or None for what is no link.

    `unseen` are the directories that could not be looked into.
    """

    devices: tuple[Device, ...] = ()
    links: dict[str, str | None] = {}
    unseen: frozenset[str] = frozenset()


class OnedView(msgspec.Struct, frozen=True):
    """What oned said, by id: None where it said that there is none of that id. Who is not here was not asked about."""

    images: dict[int, Registered | None]
    vms: dict[int, Vm | None]


class View(msgspec.Struct, frozen=True):
    """All of it. `agents` are the compute agents by oned's names of their hosts, `now` is in seconds since the epoch.

    What ended less than `grace_s` seconds ago is not removed yet.
    """

    cloud: str
    now: float
    grace_s: float
    oned: OnedView
    stocks: Mapping[str, StockIs | str]
    hosts: Mapping[str, HostView | str]
    agents: Mapping[str, str]

    def answered(self) -> dict[str, StockIs]:
        """The NASes that told what they have."""
        return {nas: stock for nas, stock in self.stocks.items() if isinstance(stock, StockIs)}

    def host(self, agent: str) -> HostView | None:
        """What that host has; None when it cannot be asked."""
        found = self.hosts.get(agent)
        return found if isinstance(found, HostView) else None
