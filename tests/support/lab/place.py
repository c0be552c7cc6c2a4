"""Where everything of one lab is: its hosts, addresses and paths, all derived from its number and directory."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tests.support.sandbox.place import CHECKOUT, SandboxError

# Each lab takes two /24 of 198.18.0.0/15 (RFC 2544: test networks), one for its hosts, one for the cable by which it runs
# commands on them; and two of the user ids 61106 to 61183, which sandboxes leave: so there are 39 of them.
IDS = range(39)
NAS = "nas1"
NODES = ("node1", "node2")
GUESTS = (NAS, *NODES)
# OpenNebula's machine, in a lab whose guests have nothing of onelun.
ONE = "one"
MACHINES = (*GUESTS, ONE)
FRONT = "front"
HOSTS = (FRONT, *MACHINES)
_LAST_BYTE = {FRONT: 1, ONE: 2, NAS: 11, "node1": 21, "node2": 22}
AGENT_PORT = 7001


class LabError(SandboxError):
    """The lab cannot do what was asked; one sentence for a person."""


def cache(*parts: str) -> str:
    """A path below the lab's directory in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "onelun", "lab", *parts)


@dataclass(frozen=True)
class Lab:
    """Lab `number` in directory `dir`."""

    number: int
    dir: str

    def path(self, *parts: str) -> str:
        """A path in the lab's directory."""
        return os.path.join(self.dir, *parts)

    def log(self, name: str) -> str:
        """Where a process's output goes."""
        return self.path("log", f"{name}.log")

    @property
    def mark(self) -> str:
        """What tells this lab's processes: in their environment."""
        return f"onelun-lab-{self.number}:{self.dir}"

    def address(self, host: str) -> str:
        """A host's address among the hosts."""
        return f"198.18.{self.number}.{_LAST_BYTE[host]}"

    def agent_address(self, host: str) -> str:
        """A host's address on the cable by which the lab runs commands there; that of `front` is the lab's own."""
        return f"198.19.{self.number}.{_LAST_BYTE[host]}"


def default_dir(number: int) -> str:
    """Where lab `number` lives."""
    return f"/tmp/onelun-lab-{number}"


def mac(host: str, *, agent: bool = False) -> str:
    """A host's MAC address: the same at every boot, since a stale ARP entry stalls the others for half a minute."""
    return f"02:00:00:00:{'01' if agent else '00'}:{_LAST_BYTE[host]:02x}"


__all__ = [
    "AGENT_PORT",
    "CHECKOUT",
    "FRONT",
    "GUESTS",
    "HOSTS",
    "IDS",
    "MACHINES",
    "NAS",
    "NODES",
    "ONE",
    "Lab",
    "LabError",
    "cache",
    "mac",
]
