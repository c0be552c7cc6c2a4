"""The start of a lab: from nothing to guests on one bridge and, unless told otherwise, agents and a frontend that answer."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.support.lab import record
from tests.support.lab import root as roots
from tests.support.lab.apart import fork_apart, fork_inside, hold, wait_for
from tests.support.lab.cables import make_bridges, plug_in
from tests.support.lab.calls import check
from tests.support.lab.front import start_agent, start_broker, start_frontend, wait_for_roles
from tests.support.lab.guests import start, wait
from tests.support.lab.machine import Guest, Say, machine
from tests.support.lab.place import NAS, NODES, ONE, Lab, LabError
from tests.support.lab.roles import compute_settings, configure, configure_front, frontend_settings, nas_settings
from tests.support.lab.shell import front
from tests.support.lab.teardown import down
from tests.support.sandbox.processes import look, run, wait_until
from tests.support.sandbox.roles import Settings, make_faults

DISK = "16G"
UPPER = "4G"
# Where a guest's agent looks for faults, when it is to have some.
FAULTS = "/run/lab/faults"


@dataclass(frozen=True)
class Variant:
    """How a lab may be: the engine of the NAS's pool (lvm, zfs), its exporter (lio, tgt), [limits].

    `bare` has no onelun; in a `clean` one no guest has anything of it, and a front-end is a guest as well.
    With `faults` its roles let in what is planned: in the directory FAULTS of a guest, and in `faults` of the lab's for the
    frontend, whose settings `frontend` are otherwise than usual.
    """

    engine: str = "lvm"
    exporter: str = "lio"
    bare: bool = False
    memory_mib: int = 512
    limits: Mapping[str, float] = field(default_factory=dict)
    clean: bool = False
    faults: bool = False
    frontend: Mapping[str, object] = field(default_factory=dict)

    def guests(self, lab: Lab) -> list[Guest]:
        """nas1 and the nodes, and `one` where a front-end is installed."""
        clean = {"clean": "1"} if self.clean else {}
        faults = {"faults": FAULTS} if self.faults else {}
        services = {"services": "tgtd"} if self.exporter == "tgt" else {}
        kind, more = ("qemu", 256) if self.engine == "zfs" else ("uml", 0)
        nas = Guest(
            *(lab, NAS, kind, self.memory_mib + more),
            disks=(lab.path("disks", "nas1-data"),),
            upper=lab.path("disks", "nas1"),
            settings=services | clean | faults,
        )
        nodes = [
            Guest(
                lab,
                name,
                "uml",
                self.memory_mib,
                upper=lab.path("disks", name),
                settings={"services": "iscsid"} | clean | faults,
            )
            for name in NODES
        ]
        if self.clean:
            nodes.append(Guest(lab, ONE, "uml", self.memory_mib, upper=lab.path("disks", ONE), settings=clean))
        return [nas, *nodes]


def up(number: int | None, owner: int | None, variant: Variant, say: Say) -> Lab:
    """Make a lab and return when all of it answers. What fails leaves nothing behind.

    `owner`, a process id, is whose lab it is; None keeps it until `down`.
    """
    root = roots.build(say)
    for kind in {guest.kind for guest in variant.guests(Lab(0, ""))}:
        machine(kind).build(root, say)
    lab = record.take_lab(number, owner)
    try:
        for name in ("guests", "log", "pids", "disks", "memory"):
            os.mkdir(lab.path(name), 0o711)
        holder = _make_holder(lab, root)
        record.write(lab, root=root, holder=[holder, look(holder).started])
        record.keep_guests(lab, variant.guests(lab))
        if wait_for(_child(lab, holder, variant, root, say)):
            raise LabError(f"lab {lab.number} did not come up")
        record.write(lab, ready=True)
    except BaseException:
        down(lab)
        raise
    return lab


def _make_holder(lab: Lab, root: str) -> int:
    """The first process of the lab's namespaces. A child of ours makes them, so that we stay where we are."""
    reader, writer = os.pipe()
    maker = os.fork()
    if maker == 0:
        child = 1
        try:
            lock = roots.hold(root)
            child = fork_apart(dies_with_us=False)
            if child == 0:
                run("mount", "-t", "tmpfs", "-o", "mode=700,size=90%", "lab", lab.path("memory"))
                hold(lock)
            os.write(writer, str(child).encode())
        except LabError as error:
            print(f"scripts/lab: {error}", file=sys.stderr)
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(maker, 0)
    with open(reader) as pipe:
        text = pipe.read()
    if not text:
        raise LabError("this machine refuses the namespaces that a lab is made of")
    wait_until(lambda: look(int(text)).name == "sleep", "the lab's namespaces should be there", 60)
    return int(text)


def _child(lab: Lab, holder: int, variant: Variant, root: str, say: Say) -> int:
    child = fork_inside(holder)
    if child:
        return child
    status = 1
    try:
        _build(lab, variant, root, say)
        status = 0
    except Exception as error:
        say(f"failed: {error}")
    finally:
        os._exit(status)


def _build(lab: Lab, variant: Variant, root: str, say: Say) -> None:
    make_bridges(lab)
    guests = variant.guests(lab)
    for guest in guests:
        plug_in(guest)
        assert guest.upper is not None
        make_disk(guest.upper, UPPER)
        run("mkfs.ext4", "-q", "-F", guest.upper)
        for disk in guest.disks:
            make_disk(disk, DISK)
    with ThreadPoolExecutor(1) as pool:
        # The broker takes as long as the guests.
        urls = None if variant.bare else pool.submit(start_broker, lab)
        began = time.monotonic()
        processes = {guest.name: start(guest, root) for guest in guests}
        for guest in guests:
            wait(guest, processes[guest.name])
            say(f"{guest.name} is up ({guest.kind}, {time.monotonic() - began:.1f} s)")
        make_pool(lab, variant.engine)
        say(f"pool {variant.engine} on {NAS}")
        if urls is None:
            return
        users = urls.result()
    say("broker answers")
    if variant.clean:
        return
    if variant.faults:
        make_faults(front(lab))
    common: Settings = {"faults": variant.faults, "limits": dict(variant.limits)}
    nas = {**common, "broker": {"url": users[f"nas.{NAS}"]}, "nas": nas_settings(lab, variant.engine, variant.exporter)}
    configure(lab, NAS, nas)
    for node in NODES:
        compute = compute_settings(lab, node)
        configure(lab, node, {**common, "broker": {"url": users[f"compute.{node}"]}, "compute": compute})
    frontend = frontend_settings(lab) | dict(variant.frontend)
    configure_front(lab, {**common, "broker": {"url": users["frontend"]}, "frontend": frontend})
    record.write(lab, url=users["frontend"])
    for host in (NAS, *NODES):
        start_agent(lab, host)
    start_frontend(lab)
    wait_for_roles(lab)
    say("agents and frontend answer")


def make_disk(path: str, size: str) -> None:
    """An empty disk that takes no space yet."""
    run("truncate", "-s", size, path)


def make_pool(lab: Lab, engine: str) -> None:
    """The pool of the NAS, on its data disk, as an operator would make it; it comes back by itself at each boot."""
    if engine == "lvm":
        script = (
            "set -e; vgcreate -q onelun $ONELUN_LAB_DISKS;"
            " lvcreate -q -y --type thin-pool -L 12G --poolmetadatasize 64M -n thin onelun"
        )
    else:
        script = "set -e; zpool create -o cachefile=/etc/zfs/zpool.cache tank $ONELUN_LAB_DISKS; zfs create tank/onelun"
    check(lab, NAS, "sh", "-c", script)
