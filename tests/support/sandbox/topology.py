"""The machines of a sandbox: a bridge, and hosts that each have a network and a mount namespace of their own."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from tests.support.sandbox.place import HOSTS, NAS, NODES, Place, SandboxError
from tests.support.sandbox.processes import Process, enter, look, run, start, wait_until

DEVICES = "/dev/onelun"


def make_bridge(place: Place) -> None:
    """The bridge with its address, in the machine's own network namespace. SandboxError when its name is taken."""
    run("ip", "link", "add", place.bridge, "type", "bridge")
    run("ip", "addr", "add", f"{place.address()}/24", "dev", place.bridge)
    run("ip", "link", "set", place.bridge, "up")


def make_host(place: Place, host: str) -> Process:
    """One host: the process that holds its namespaces, its cable, its `/dev/onelun` and its datastores."""
    holder = start(
        place,
        f"{host}.holder",
        ["unshare", "--net", "--mount", "--propagation", "private", "--", "sleep", "infinity"],
    )
    wait_until(lambda: _is_apart(holder), f"{host} needs namespaces of its own", 60, needs=holder)
    cable = f"link add {place.veth(host)} type veth peer name eth0 netns {holder.pid}\n"
    run("ip", "-batch", "-", stdin=f"{cable}link set {place.veth(host)} master {place.bridge} up\n")
    inside = enter(holder.pid)
    run(
        *inside,
        "ip",
        "-batch",
        "-",
        stdin=f"link set lo up\naddr add {place.address(host)}/24 dev eth0\nlink set eth0 up\n",
    )
    # The source of this mount is the sandbox's mark: every process that sees it belongs to the sandbox.
    run(*inside, "mount", "-t", "tmpfs", "-o", "mode=755,size=4k", place.mark, place.path("mark"))
    with devices_kept():
        os.makedirs(DEVICES, exist_ok=True)
        run(*inside, "mount", "-t", "tmpfs", "-o", "mode=755,size=1m", place.mark, DEVICES)
    if host in NODES:
        run(*inside, "mount", "--bind", place.host_datastores(host), place.datastores)
    return holder


@contextlib.contextmanager
def devices_kept() -> Iterator[None]:
    """Meanwhile no other sandbox that ends takes the directory of the devices away: that would unmount what is mounted there."""
    above = os.open(os.path.dirname(DEVICES), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(above, fcntl.LOCK_EX)
        yield
    finally:
        os.close(above)


def make_hosts(place: Place) -> dict[str, Process]:
    """All hosts, on the bridge that is there."""
    return {host: make_host(place, host) for host in HOSTS}


def make_pool(place: Place, nas: Process, filesystem: str) -> None:
    """A filesystem of its own for the NAS's pool, such as one that can share blocks; only the NAS sees it."""
    image = place.path("hosts", NAS, "pool.img")
    run("truncate", "-s", "16G", image)
    run(f"mkfs.{filesystem}", "-q", image, timeout_s=120)
    run(*enter(nas.pid), "mount", "-o", "loop", image, place.pool)


def limit_state(place: Place, nas: Process, size_mb: int) -> None:
    """A filesystem of its own, of that size, for what the NAS agent keeps; only the NAS sees it."""
    state = place.path("hosts", NAS, "state")
    run(*enter(nas.pid), "mount", "-t", "tmpfs", "-o", f"mode=700,size={size_mb}m", place.mark, state)


def _is_apart(holder: Process) -> bool:
    # Only when unshare has become sleep are its mounts private: a mount made earlier would show on the machine.
    return look(holder.pid).name == "sleep"


def check_machine() -> None:
    """SandboxError, in one sentence, on a machine where no sandbox can be."""
    if os.geteuid() != 0:
        raise SandboxError("the sandbox needs root: it makes namespaces, loop devices and mounts")
    try:
        run("unshare", "--net", "--mount", "--propagation", "private", "--", "true")
    except SandboxError as error:
        raise SandboxError(
            f"this machine allows no network and mount namespaces, which the sandbox's hosts are made of ({error})"
        ) from None
    for device, purpose in (("/dev/fuse", "FUSE"), ("/dev/loop-control", "loop devices")):
        if not os.path.exists(device):
            raise SandboxError(
                f"this machine has no {purpose} ({device} is missing), which the sandbox's block devices are made of"
            )
