"""The sandbox's tgtd, in the NAS's namespaces."""

from __future__ import annotations

from tests.support.sandbox.place import NAS, Place
from tests.support.sandbox.processes import enter, keep_pid
from tests.support.tgt import PrivateTgtd

PORT = 3260


def start_tgtd(place: Place, inside: int) -> None:
    """Start tgtd on the NAS's address; returns when it answers."""
    # A thread a LUN is enough for a sandbox; 200 targets have 201 threads then.
    tgtd = PrivateTgtd(place.tgt_directory, [f"{place.address(NAS)}:{PORT}"], prefix=enter(inside), threads=1)
    keep_pid(place, "tgtd", tgtd.start())


def tgt_control(place: Place) -> str:
    """The control socket that the NAS agent speaks to."""
    return PrivateTgtd(place.tgt_directory, []).control_socket
