"""What the agents and the frontend of a lab are told: their configuration files, as an operator would write them."""

from __future__ import annotations

import os

from tests.support.lab.calls import check
from tests.support.lab.place import FRONT, NAS, NODES, Lab
from tests.support.lab.shell import front
from tests.support.sandbox.place import CLOUD, POOL
from tests.support.sandbox.roles import Settings, toml

PORT = 3260


def nas_settings(lab: Lab, engine: str, exporter: str) -> Settings:
    """[nas] of nas1."""
    pool: Settings = {"backend": "zfs", "dataset": "tank/onelun"}
    if engine == "lvm":
        pool = {"backend": "lvm", "vg": "onelun", "thin_pool": "thin"}
    portal: Settings = {"address": lab.address(NAS), "port": PORT}
    return {"name": NAS, "exporter": exporter, exporter: portal, "pools": {POOL: pool}, "default_pool": POOL}


def compute_settings(lab: Lab, node: str) -> Settings:
    """[compute] of a node."""
    owner = front(lab).frontend_uid
    return {
        "name": node,
        "datastores": lab.path("datastores"),
        "owner": f"{owner}:{owner}",
        "connector": "iscsi",
        "initiator": initiator(node),
    }


def initiator(node: str) -> str:
    """The iSCSI name of a node, which is also in its /etc/iscsi/initiatorname.iscsi (guest/start)."""
    return f"iqn.2026-11.io.onelun.host:{node}"


def frontend_settings(lab: Lab) -> Settings:
    """[frontend]."""
    place = front(lab)
    return {
        "cloud": CLOUD,
        "socket": place.frontend_socket,
        "nas": [NAS],
        "names": ["frontend"],
        "hosts": {"host01": NODES[0], "host02": NODES[1]},
        "datastores": lab.path("datastores"),
        "owner": f"{place.frontend_uid}:{place.frontend_uid}",
        "staging": place.path("frontend", "staging"),
    }


def configure(lab: Lab, host: str, settings: Settings) -> None:
    """Write a guest's configuration, for root alone, and make the datastores' directory of a node.

    Durably: the next thing that a test does may be to cut the power.
    """
    script = (
        "umask 077; mkdir -p /etc/onelun; cat >/etc/onelun/onelun.toml; umask 022;"
        ' mkdir -p "$0"; chown "$1:$1" "$0"; sync'
    )
    uid = str(front(lab).frontend_uid)
    check(lab, host, "sh", "-c", script, lab.path("datastores"), uid, stdin=toml(settings).encode())


def configure_front(lab: Lab, settings: Settings) -> None:
    """Write the frontend's configuration, for its user alone."""
    place = front(lab)
    path = place.config("frontend")
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(toml(settings))
    os.chown(path, place.frontend_uid, place.frontend_uid)


__all__ = [
    "FRONT",
    "compute_settings",
    "configure",
    "configure_front",
    "frontend_settings",
    "nas_settings",
]
