"""The same scripts, called for VMs in a system datastore of OpenNebula's own driver `ssh`."""

from __future__ import annotations

from tests.recorded.cloud import Image, OnedVm, Scribble
from tests.recorded.row import SSH, SSH17, Action

VM12, VM17 = OnedVm("vm-12.lcm-18", 12), OnedVm("vm-17.lcm-18", 17)
_LN12 = f"LN.ssh onelun vm:onelun/one-36 host01{SSH}/disk.1 12 102"
_LN17 = f"LN.ssh onelun vm:onelun/one-36 host01{SSH17}/disk.1 17 102"
_SNAP17 = f"SNAP_CREATE.ssh onelun host01{SSH17}/disk.1 {{}} 17 102"
MIXED = (
    Action(
        "tm.clone.ssh",
        lambda s: s.volume("one-28-12-0", 64, like="one-28").disk("node1", "110/12/disk.0", "one-28-12-0"),
        before=(Image(28, 64),),
        vm=VM12,
    ),
    Action(
        "tm.ln.ssh",
        lambda s: s.disk("node1", "110/12/disk.1", "one-36"),
        before=(Image(36, 256),),
        vm=VM12,
    ),
    Action(
        "tm.mv.ssh",
        lambda s: s.detached("node2", "one-28-12-0").disk("node1", "110/12/disk.0", "one-28-12-0"),
        before=(Image(28, 64), f"CLONE.ssh onelun vm:onelun/one-28 host02{SSH}/disk.0 12 102"),
        vm=OnedVm("vm-12.lcm-18", 12, lcm=8, host="host01"),
    ),
    Action(
        "tm.mvds.ssh",
        lambda s: s.without_entry("frontend", "110/12/disk.1"),
        before=(Image(36, 256), _LN12, f"MV.ssh onelun host01{SSH}/disk.1 vm{SSH}/disk.1 12 102"),
        vm=OnedVm("vm-12.lcm-18", 12, lcm=30),
    ),
    Action(
        "tm.delete.ssh",
        lambda s: s.detached("node1", "one-9-12-4").without_entry("node1", "110/12/disk.4").without("one-9-12-4"),
        before=(Image(9, 100), f"CLONE.ssh onelun vm:onelun/one-9 host01{SSH}/disk.4 12 102"),
        vm=OnedVm("vm-12.lcm-18", 12, host="host01"),
    ),
    Action(
        "tm.cpds.ssh",
        lambda s: s.volume("one-39", 256, like="one-36"),
        before=(Image(36, 256), Image(39, 256, empty=True), _LN12),
        vm=OnedVm("vm-12.lcm-18", 12, lcm=26, host="host01"),
    ),
    Action(
        "tm.resize.ssh",
        lambda s: s.grown("one-36", 300),
        before=(Image(36, 256), _LN12),
        vm=OnedVm("vm-12.lcm-62", 12),
    ),
    Action(
        "tm.snap_create.ssh",
        lambda s: s.snapshot("one-36", 1),
        before=(Image(36, 300), _LN17),
        vm=VM17,
    ),
    Action(
        "tm.snap_create_live.ssh",
        lambda s: s.snapshot("one-36", 0),
        before=(Image(36, 300), _LN17),
        vm=VM17,
    ),
    Action(
        "tm.snap_delete.ssh",
        lambda s: s.without_snapshots("one-36", 1),
        before=(Image(36, 300), _LN17, _SNAP17.format(1)),
        vm=VM17,
    ),
    Action(
        "tm.snap_revert.ssh",
        lambda s: s.reverted("one-36", 0),
        before=(Image(36, 300), _LN17, _SNAP17.format(0), Scribble("one-36")),
        vm=VM17,
    ),
)
