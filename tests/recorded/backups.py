"""Backups of a VM with three disks, and putting them back. All are full ones: tests/e2e/backups.bats has increments."""

from __future__ import annotations

from tests.recorded.cloud import Image, Kept, OnedVm, Ran, Scribble, Step, written
from tests.recorded.row import ALL, COMPUTE, FRONTEND, NAS, ONE, STUB, Action
from tests.support.observed import State, backup_of

# The VM's disks, and the image that each has its content from.
_DISKS = {0: ("one-3-0-0", 3), 1: ("one-4", 4), 5: ("one-3-0-5", 3)}
_VM: tuple[Step, ...] = (
    Image(3, 64),
    Image(4, 64),
    f"CLONE onelun vm:onelun/one-3 {ONE}/disk.0 0 102",
    f"LN onelun vm:onelun/one-4 {ONE}/disk.1 0 102",
    f"CLONE onelun vm:onelun/one-3 {ONE}/disk.5 0 102",
)


def _backed_up(state: State) -> State:
    for number, (volume, _) in _DISKS.items():
        whole = backup_of(state.volumes[volume].content)
        state = state.entry("node1", f"103/0/backup/disk.{number}.0", whole)
    return state.entry("node1", "103/0/backup/vm.xml", "file")


def _removed(state: State) -> State:
    return state.without_entry("node1", "103/0/backup")


def _restored(state: State) -> State:
    for volume, image in _DISKS.values():
        state = state.holding(volume, written(image))
    return state


BACKUPS = (
    Action("tm.prebackup", _backed_up, before=_VM, vm=OnedVm("vm-0.lcm-70", 0), kills=(STUB, NAS)),
    Action("tm.prebackup_live", _backed_up, before=_VM, vm=OnedVm("vm-0.lcm-69", 0), kills=(FRONTEND, COMPUTE)),
    Action(
        "tm.postbackup",
        _removed,
        before=(*_VM, Ran("tm.prebackup")),
        vm=OnedVm("vm-0.lcm-70", 0),
        kills=(FRONTEND, COMPUTE),
    ),
    Action(
        "tm.postbackup_live",
        _removed,
        before=(*_VM, Ran("tm.prebackup_live")),
        vm=OnedVm("vm-0.lcm-69", 0),
        kills=(STUB, NAS),
    ),
    Action(
        "tm.restore",
        _restored,
        before=(
            *_VM,
            Ran("tm.prebackup"),
            Kept(f"{ONE.partition(':')[0]}:103/0"),
            Ran("tm.postbackup"),
            *(Scribble(volume) for volume, _ in _DISKS.values()),
        ),
        vm=OnedVm("vm-0.lcm-12", 0, lcm=0, state=8),
        kills=ALL,
    ),
)
