"""Where an OpenNebula keeps its files: below / as packages lay them, or all below ONE_LOCATION."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Place(msgspec.Struct, frozen=True):
    """The paths that onelun has to do with."""

    etc: str
    remotes: str

    @property
    def oned_conf(self) -> str:
        """The configuration of oned."""
        return f"{self.etc}/oned.conf"

    @property
    def vmm_execrc(self) -> str:
        """The settings of the drivers of hypervisors."""
        return f"{self.etc}/vmm_exec/vmm_execrc"

    def release(self) -> str | None:
        """The release that is installed, such as "7.0.2"; None when remotes/VERSION does not tell."""
        try:
            with open(f"{self.remotes}/VERSION", encoding="ascii", errors="replace") as file:
                return file.readline(40).strip() or None
        except OSError:
            return None


def place_of(environ: Mapping[str, str]) -> Place:
    """OpenNebula's place on this machine, by ONE_LOCATION."""
    location = environ.get("ONE_LOCATION", "").rstrip("/")
    if location:
        return Place(f"{location}/etc", f"{location}/var/remotes")
    return Place("/etc/one", "/var/lib/one/remotes")
