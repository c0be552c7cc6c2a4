"""A VM that moves while it runs, with all kinds of disks."""

from __future__ import annotations

from tests.recorded.cloud import Image, OnedVm, Ran, Step
from tests.recorded.row import COMPUTE, FRONTEND, NAS, ONE, STUB, TWO, Action
from tests.support.observed import State

# The VM's disks before it moves, and where each is.
_DISKS = {0: "one-3-0-0", 1: "one-4", 2: "one-vm-0-2", 3: "one-vm-0-3", 4: "one-8", 5: "one-3-0-5"}


def _vm_on(where: str) -> tuple[Step, ...]:
    lines = ("CLONE onelun vm:onelun/one-3 {}/disk.0 0 102", "LN onelun vm:onelun/one-4 {}/disk.1 0 102")
    lines += ("MKIMAGE onelun 16 raw {}/disk.2 0 103", "MKSWAP onelun 8 {}/disk.3 0 103")
    lines += ("LN onelun vm:onelun/one-8 {}/disk.4 0 102", "CLONE onelun vm:onelun/one-3 {}/disk.5 0 102")
    lines += ("CONTEXT onelun /var/lib/one/vms/0/context.sh {}/disk.6 0 103",)
    return (Image(3, 64), Image(4, 64), Image(8, 64), *(line.format(where) for line in lines))


def _arrived(state: State, host: str) -> State:
    for number, volume in _DISKS.items():
        state = state.disk(host, f"103/0/disk.{number}", volume)
    return state.entry(host, "103/0/disk.6", "file")


def _left(state: State, host: str) -> State:
    for volume in _DISKS.values():
        state = state.detached(host, volume)
    return state.without_entry(host, "103/0")


_OTHER_WAY = ("host01", "host02", "/var/lib/one//datastores/103/0", "0", "103")
MIGRATION = (
    Action(
        "tm.premigrate",
        lambda s: _arrived(s, "node1"),
        before=_vm_on(TWO),
        vm=OnedVm("vm-0.lcm-4", 0, host="host02"),
        kills=(FRONTEND, COMPUTE),
    ),
    Action(
        "tm.postmigrate",
        lambda s: _left(s, "node2"),
        before=(*_vm_on(TWO), Ran("tm.premigrate")),
        vm=OnedVm("vm-0.lcm-4", 0, host="host02"),
        kills=(NAS, COMPUTE),
    ),
    Action(
        "tm.failmigrate",
        lambda s: _left(s, "node2"),
        before=(*_vm_on(ONE), Ran("tm.premigrate", _OTHER_WAY)),
        vm=OnedVm("vm-0.lcm-4", 0, host="host01"),
        kills=(STUB, NAS),
    ),
)
