"""In a guest of the lab: what onelun does, done by hand; in_guest.py VERB ARGUMENT..., seconds as JSON on stdout.

export VOLUME IQN ADDRESS INITIATOR, unexport VOLUME IQN: on the NAS. VOLUME is VG/LV, or `same`: what LIO exports already.
clone VOLUME IQN ADDRESS INITIATOR: as `export`, of a new clone of it, VG/clone.
login IQN ADDRESS, logout IQN ADDRESS: on a host. copy DEVICE DEVICE: O_DIRECT data on both, in turn.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

USER, SECRET = "by-hand", "a-secret-of-16-b"
MIB, ROUNDS, LIMIT_S = 32, 24, 120


def run(*argv: str) -> None:
    """Run it, or end with its words."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(argv)}: {done.stderr.strip()}")


def took(work: Callable[[], object]) -> float:
    """The seconds of it."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def export(volume: str, iqn: str, address: str, initiator: str) -> object:
    """Activate it, and a target for one initiator with its secret."""
    return _exported(lambda: run("lvchange", "-ay", volume), volume, iqn, address, initiator)


def clone(volume: str, iqn: str, address: str, initiator: str) -> object:
    """Clone it, which activates the clone, and a target for that."""
    new = f"{volume.partition('/')[0]}/clone"
    make = partial(run, "lvcreate", "-q", "-s", "-kn", "-n", new, volume)
    return _exported(make, new, iqn, address, initiator)


def _exported(ready: Callable[[], None], volume: str, iqn: str, address: str, initiator: str) -> float:
    from rtslib_fb import TPG, BlockStorageObject, FabricModule, NetworkPortal, NodeACL, RTSRoot, Target

    def work() -> None:
        if volume == "same":
            (storage,) = RTSRoot().storage_objects
        else:
            ready()
            storage = BlockStorageObject("by-hand", f"/dev/{volume}")
            storage.set_attribute("emulate_tpu", 1)
        tpg = TPG(Target(FabricModule("iscsi"), iqn), 1)
        tpg.set_attribute("authentication", 1)
        tpg.set_attribute("generate_node_acls", 0)
        lun = tpg.lun(0, storage)
        NetworkPortal(tpg, address, 3260)
        acl = NodeACL(tpg, initiator)
        acl.chap_userid, acl.chap_password = USER, SECRET
        acl.mapped_lun(0, lun, write_protect=False)
        tpg.enable = True

    return took(work)


def unexport(volume: str, iqn: str) -> object:
    """The reverse."""
    from rtslib_fb import BlockStorageObject, FabricModule, Target

    def work() -> None:
        Target(FabricModule("iscsi"), iqn, mode="lookup").delete()
        if volume != "same":
            BlockStorageObject("by-hand").delete()
            run("lvchange", "-an", volume)

    return took(work)


def login(iqn: str, address: str) -> object:
    """Record, login, device."""
    node = ("iscsiadm", "-m", "node", "-T", iqn, "-p", f"{address}:3260")
    auth = [
        word
        for name, value in (("authmethod", "CHAP"), ("username", USER), ("password", SECRET))
        for word in ("-n", f"node.session.auth.{name}", "-v", value)
    ]

    def work() -> None:
        run(*node, "-o", "new")
        run(*node, "-o", "update", *auth)
        run(*node, "--login")
        run("udevadm", "settle", "--timeout=30")

    return took(work)


def logout(iqn: str, address: str) -> object:
    """Flush, logout, and no record."""
    node = ("iscsiadm", "-m", "node", "-T", iqn, "-p", f"{address}:3260")

    def work() -> None:
        run("blockdev", "--flushbufs", f"/dev/disk/by-path/ip-{address}:3260-iscsi-{iqn}-lun-0")
        run(*node, "--logout")
        run(*node, "-o", "delete")

    return took(work)


def copy(ours: str, by_hand: str) -> object:
    """The seconds of each round to write and to read some MiB of each."""
    times: dict[str, list[float]] = {}
    size = ("bs=1M", f"count={MIB}")
    for number in range(ROUNDS + 1):
        both = [("onelun", ours), ("by hand", by_hand)]
        # Each is the first as often: what the one has left to be written back slows the other.
        for name, device in both if number % 2 else reversed(both):
            written = took(
                partial(run, "dd", "if=/dev/zero", f"of={device}", "oflag=direct", "conv=notrunc,fsync", *size)
            )
            read = took(partial(run, "dd", f"if={device}", "of=/dev/null", "iflag=direct", *size))
            # The first round allocates the blocks.
            if number:
                times.setdefault(f"write {name}", []).append(written)
                times.setdefault(f"read {name}", []).append(read)
    return times


VERBS = {"export": export, "clone": clone, "unexport": unexport, "login": login, "logout": logout, "copy": copy}

if __name__ == "__main__":
    print(json.dumps(VERBS[sys.argv[1]](*sys.argv[2:])))
