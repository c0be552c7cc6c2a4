"""Actions on the disks and directories of VMs."""

from __future__ import annotations

from tests.recorded.cloud import Image, OnedVm, Scribble, Step
from tests.recorded.row import ALL, ASKING, COMPUTE, FRONTEND, NAS, ONE, PROLOG, SPACE, STUB, TWO, Action, same
from tests.support.observed import SWAP

_LN4: tuple[Step, ...] = (Image(4, 64), f"LN onelun vm:onelun/one-4 {ONE}/disk.1 0 102")
TRANSFER = (
    Action(
        "tm.clone",
        lambda s: s.volume("one-3-0-0", 64, like="one-3").disk("node1", "103/0/disk.0", "one-3-0-0"),
        before=(Image(3, 64),),
        vm=PROLOG,
        kills=ALL,
    ),
    Action(
        "tm.clone",
        # oned says that the VM's disk is larger than the image.
        lambda s: s.volume("one-3-0-5", 256, like="one-3").disk("node1", "103/0/disk.5", "one-3-0-5"),
        before=(Image(3, 64),),
        vm=PROLOG,
        line=f"CLONE onelun vm:onelun/one-3 {ONE}/disk.5 0 102",
    ),
    Action(
        "tm.ln",
        lambda s: s.disk("node1", "103/0/disk.1", "one-4"),
        before=(Image(4, 64),),
        vm=PROLOG,
        kills=ALL,
    ),
    Action(
        "tm.mkimage",
        lambda s: s.volume("one-vm-0-2", 16).disk("node1", "103/0/disk.2", "one-vm-0-2"),
        vm=PROLOG,
        kills=ALL,
    ),
    Action(
        "tm.mkswap",
        lambda s: s.volume("one-vm-0-3", 8, holds=SWAP).disk("node1", "103/0/disk.3", "one-vm-0-3"),
        vm=PROLOG,
    ),
    Action(
        "tm.context", lambda s: s.entry("node1", "103/0/disk.6", "file"), vm=PROLOG, kills=(STUB, FRONTEND, COMPUTE)
    ),
    Action(
        "tm.delete",
        lambda s: s.detached("node1", "one-9-0-7").without_entry("node1", "103/0/disk.7").without("one-9-0-7"),
        before=(Image(9, 100), f"CLONE onelun vm:onelun/one-9 {ONE}/disk.7 0 102"),
        vm=OnedVm("vm-0.lcm-18", 0),
        kills=ALL,
    ),
    Action(
        "tm.delete",
        # oned's recover gives every disk to delete, an image's own as well, which stays.
        lambda s: s.detached("node1", "one-4").without_entry("node1", "103/0/disk.1"),
        before=_LN4,
        vm=OnedVm("vm-0.lcm-18", 0),
        line=f"DELETE onelun {ONE}/disk.1 0 102",
    ),
    Action(
        "tm.delete",
        lambda s: s.without_entry("node1", "103/0"),
        before=(f"CONTEXT onelun /var/lib/one/vms/0/context.sh {ONE}/disk.6 0 103",),
        vm=OnedVm("vm-0.lcm-18", 0),
        line=f"DELETE onelun {ONE} 0 103",
    ),
    Action(
        "tm.mvds",
        lambda s: s.detached("node1", "one-10").without_entry("node1", "103/0/disk.7"),
        before=(Image(10, 64), f"LN onelun vm:onelun/one-10 {ONE}/disk.7 0 102"),
        vm=OnedVm("vm-0.lcm-18", 0),
        kills=ALL,
    ),
    Action(
        "tm.mv",
        lambda s: s.detached("node1", "one-3-0-0").entry(
            "frontend", "103/0/disk.0", s.entries["node1", "103/0/disk.0"]
        ),
        before=(Image(3, 64), f"CLONE onelun vm:onelun/one-3 {ONE}/disk.0 0 102"),
        vm=OnedVm("vm-0.lcm-12", 0, lcm=10),
        kills=ALL,
    ),
    Action(
        "tm.mv",
        lambda s: s.detached("node1", "one-4").disk("node2", "103/0/disk.1", "one-4"),
        before=_LN4,
        vm=OnedVm("vm-0.lcm-18", 0, lcm=8, host="host02"),
        line=f"MV onelun {ONE}/disk.1 {TWO}/disk.1 0 102",
        kills=(COMPUTE,),
    ),
    Action(
        "tm.mv",
        lambda s: s.without_entry("node1", "103/0").entry("node2", "103/0/disk.6", "file"),
        before=(f"CONTEXT onelun /var/lib/one/vms/0/context.sh {ONE}/disk.6 0 103",),
        vm=OnedVm("vm-0.lcm-18", 0, lcm=8, host="host02"),
        line=f"MV onelun {ONE} {TWO} 0 103",
        kills=(STUB, FRONTEND, COMPUTE),
    ),
    Action(
        "tm.cpds",
        lambda s: s.volume("one-20", 64, like="one-4"),
        before=(Image(4, 64), Image(20, 64, empty=True), f"LN onelun vm:onelun/one-4 {ONE}/disk.1 0 102"),
        vm=OnedVm("vm-0.lcm-18", 0, lcm=26),
        kills=ASKING,
    ),
    Action(
        "tm.resize",
        lambda s: s.grown("one-4", 128),
        before=_LN4,
        vm=OnedVm("vm-0.lcm-62", 0),
        kills=ALL,
    ),
    Action(
        "tm.snap_create",
        lambda s: s.snapshot("one-4", 1),
        before=_LN4,
        vm=OnedVm("vm-0.lcm-18", 0, lcm=57),
        kills=ASKING,
    ),
    Action(
        "tm.snap_create_live",
        lambda s: s.snapshot("one-4", 0),
        before=_LN4,
        vm=OnedVm("vm-0.lcm-18", 0, lcm=51),
        kills=(NAS,),
    ),
    Action(
        "tm.snap_delete",
        lambda s: s.without_snapshots("one-3-0-0", 0),
        before=(
            Image(3, 64),
            f"CLONE onelun vm:onelun/one-3 {ONE}/disk.0 0 102",
            f"SNAP_CREATE onelun {ONE}/disk.0 0 0 102",
        ),
        vm=OnedVm("vm-0.lcm-18", 0, lcm=59),
        kills=ASKING,
    ),
    Action(
        "tm.snap_revert",
        lambda s: s.reverted("one-4", 0),
        before=(*_LN4, f"SNAP_CREATE onelun {ONE}/disk.1 0 0 102", Scribble("one-4")),
        vm=OnedVm("vm-0.lcm-18", 0, lcm=58),
        kills=ALL,
    ),
    Action("tm.monitor", same, prints=SPACE),
)
