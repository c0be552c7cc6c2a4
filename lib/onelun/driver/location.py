"""Locations as OpenNebula passes them: `host:path`, and which agent a host name stands for."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Mapping
from typing import NamedTuple

from onelun.driver.scripts import arg_host, arg_path
from onelun.errors import Rejected
from onelun.naming import Source, parse_source

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?")
_DISK = re.compile(r"disk\.([0-9]{1,6})")
_VM = re.compile(r"[0-9]{1,10}")


class Directory(NamedTuple):
    """A VM's directory on a host: `<datastores>/<system datastore>/<vm>`, with single slashes."""

    host: str
    path: str
    vm_id: int


class Disk(NamedTuple):
    """`disk.N` of a VM on a host."""

    host: str
    directory: str
    name: str
    vm_id: int
    disk_id: int

    @property
    def path(self) -> str:
        """The whole path of `disk.N`."""
        return f"{self.directory}/{self.name}"


def parse_location(text: str, datastores: str) -> Directory | Disk:
    """The disk or directory that `text` (`host:path`) names, below `datastores`.

    OpenNebula writes double slashes and, up to 3.4, a trailing one. Raises Rejected for what is neither, for a path outside
    `datastores`, and for one with `..` in it.
    """
    host, path = arg_host(text), arg_path(text)
    if ":" not in text or not _HOST.fullmatch(host):
        raise Rejected(f"{text[:200]!r} is no location: it should be HOST:PATH")
    if not path.startswith("/") or not path.isprintable() or len(path) > 1000:
        raise Rejected(f"{path[:200]!r} is no path of a VM's directory or disk: it should begin with a slash")
    if ".." in path.split("/"):
        raise Rejected(f"{path[:200]!r} has '..' in it, which is never followed")
    clean, root = posixpath.normpath(path), arg_path(datastores)
    if not clean.startswith(f"{root}/"):
        raise Rejected(f"{clean[:200]} is outside the datastore directory {root} (frontend.datastores)")
    parent, _, last = clean.rpartition("/")
    disk = _DISK.fullmatch(last)
    directory = parent if disk else clean
    vm = directory.rpartition("/")[2]
    if not _VM.fullmatch(vm) or directory.rpartition("/")[0] == root:
        raise Rejected(f"{clean[:200]} is neither a VM's directory ({root}/DATASTORE/VM) nor a disk.N in one")
    if disk:
        return Disk(host, directory, last, int(vm), int(disk[1]))
    return Directory(host, directory, int(vm))


def parse_disk(text: str, datastores: str) -> Disk:
    """As parse_location, for what must be a disk."""
    found = parse_location(text, datastores)
    if not isinstance(found, Disk):
        raise Rejected(f"{text[:200]} is a directory, where a disk.N was expected")
    return found


def parse_source_argument(text: str) -> Source:
    """The SOURCE of `fe:SOURCE` or of a bare `SOURCE`. Raises Rejected for what is not one of ours.

    Whose name stands before the colon does not matter: it is whatever the front-end calls itself.
    """
    host, colon, rest = text.partition(":")
    if colon and not _HOST.fullmatch(host):
        raise Rejected(f"{text[:200]!r} is no SOURCE of onelun, with or without the front-end's name before it")
    return parse_source(rest if colon else host)


class Hosts:
    """oned's names of hosts, and the agents that they stand for."""

    def __init__(self, agents: Mapping[str, str], names: Collection[str]) -> None:
        """`agents` maps names to compute agents; `names` are those of the front-end itself."""
        self._agents = agents
        self._names = names

    def agent(self, host: str) -> str | None:
        """The compute agent of that host, or None for the front-end, which has none.

        A host that is both is a compute node. Raises Rejected, naming the key to change, for a host nobody knows.
        """
        agent = self._agents.get(host)
        if agent is None and host not in self._names:
            raise Rejected(
                f"nobody serves the host {host[:99]!r}: name its agent in frontend.hosts, or in frontend.names if it is"
                " the front-end"
            )
        return agent

    def compute(self, host: str) -> str:
        """The compute agent of that host. Raises Rejected also for the front-end, on which no disk can be."""
        agent = self.agent(host)
        if agent is None:
            raise Rejected(
                f"{host} is the front-end, which connects no disks: name its agent in frontend.hosts if it does"
            )
        return agent
