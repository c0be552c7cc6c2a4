"""Where everything of one sandbox is: names, addresses, users and paths, all derived from its number and directory."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import ClassVar

CHECKOUT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))
ONELUN = (sys.executable, "-m", "onelun.cli.main")
# Each sandbox takes a /24 of 198.18.0.0/15 (RFC 2544: test networks) and two of the user ids 60706 to 61183, which
# systemd's list of user ids leaves unused; so there are 200 of them.
IDS = range(200)
# In the environment of everything that a sandbox starts itself; what those start in turn is told by its mount namespace.
MARK = "ONELUN_SANDBOX_PART"
NAS = "nas1"
NODES = ("node1", "node2")
HOSTS = (NAS, *NODES)
_LAST_BYTE = {NAS: 11, "node1": 21, "node2": 22}
POOL = "tank"
# A second one, from which and to which is copied.
SPARE = "spare"
CLOUD = "8f6f1a52-0c1e-4f0e-9a54-1f2d8f5c7a01"


class SandboxError(Exception):
    """The sandbox cannot do what was asked; one sentence for a person."""


def default_dir(number: int) -> str:
    """Where sandbox `number` lives unless told otherwise."""
    return f"/tmp/onelun-sandbox-{number}"


@dataclass(frozen=True)
class Place:
    """Sandbox `number` in directory `dir`. Its two user ids are counted from `first_uid`."""

    first_uid: ClassVar[int] = 60706

    number: int
    dir: str

    @property
    def mark(self) -> str:
        """What tells this sandbox's processes: in their environment, and as the source of a mount they see."""
        return f"onelun-sandbox-{self.number}:{self.dir}"

    @property
    def bridge(self) -> str:
        """The bridge in the machine's own network namespace."""
        return f"onelun{self.number}"

    def veth(self, host: str) -> str:
        """The bridge's end of a host's cable."""
        return f"ol{self.number}-{host}"

    def address(self, host: str | None = None) -> str:
        """A host's address; without `host` the bridge's."""
        second, third = divmod(self.number, 256)
        return f"198.{18 + second}.{third}.{_LAST_BYTE[host] if host else 1}"

    @property
    def broker_uid(self) -> int:
        """The user and group of the broker, by number: nobody makes it."""
        return self.first_uid + 2 * self.number

    @property
    def frontend_uid(self) -> int:
        """The user and group of the frontend, this sandbox's oneadmin."""
        return self.first_uid + 2 * self.number + 1

    def path(self, *parts: str) -> str:
        """A path in the sandbox's directory."""
        return os.path.join(self.dir, *parts)

    @property
    def datastores(self) -> str:
        """OpenNebula's DATASTORE_LOCATION, the same text everywhere; each host has a directory of its own mounted there."""
        return self.path("datastores")

    def host_datastores(self, host: str) -> str:
        """What `datastores` is on `host`, as the machine itself sees it."""
        return self.path("hosts", host, "datastores")

    @property
    def pool(self) -> str:
        """The directory of the NAS's pool, as the machine itself sees it."""
        return self.path("hosts", NAS, "pool")

    @property
    def tgt_directory(self) -> str:
        """Where tgtd's control socket and log are."""
        return self.path("hosts", NAS, "tgt")

    @property
    def frontend_socket(self) -> str:
        """Where the stubs find the frontend."""
        return self.path("frontend", "frontend.sock")

    def config(self, role: str) -> str:
        """The configuration file of a role: `nas1`, `node1`, `frontend`, `setup`."""
        return self.path("etc", f"{role}.toml")

    def log(self, name: str) -> str:
        """Where a process's output goes."""
        elsewhere = {"broker": self.path("broker", "server.out"), "tgtd": self.path("hosts", NAS, "tgt", "tgtd.log")}
        return elsewhere.get(name) or self.path("log", f"{name.removesuffix('.warm')}.log")
