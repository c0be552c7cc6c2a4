"""The sandbox's tgtd, in the NAS's namespaces."""

from __future__ import annotations

import os

from tests.support.sandbox.place import NAS, Place
from tests.support.sandbox.processes import Process, run, start, wait_until

PORT = 3260


def start_tgtd(place: Place, inside: int) -> Process:
    """Start tgtd on the NAS's address; returns when it answers."""
    control = {"TGT_IPC_SOCKET": place.tgt_control}
    portal = f"portal={place.address(NAS)}:{PORT}"
    tgtd = start(place, "tgtd", ["tgtd", "-f", "-t", "1", "--iscsi", portal], inside=inside, env=control)
    wait_until(lambda: _answers(place, control), "tgtd should answer", 10, needs=tgtd)
    return tgtd


def _answers(place: Place, control: dict[str, str]) -> bool:
    if not any(name.startswith("control") for name in os.listdir(os.path.dirname(place.tgt_control))):
        return False
    settings = [f"{key}={value}" for key, value in control.items()]
    return "System" in run("env", *settings, "tgtadm", "--lld", "iscsi", "--mode", "sys", "--op", "show", check=False)
