"""The actions on snapshots and save-as, as oned's recordings call them, with what the storage then has."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import Volume
from tests.support.oned import Oned, serving
from tests.support.recorded import Recorded, datastore_call, document, error, transfer_call

from onelun.driver.api import Api
from onelun.errors import Busy, NoReply, OnelunError, OutOfSpace, ProtocolError, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc import message as m

MIB = 1 << 20
VM = "/var/lib/one/datastores/103/0"
DISK = "host01:/var/lib/one//datastores/103/0/disk."
RELEASES = ("5.12", "6.0", "6.6", "6.10", "7.5")
# onevm show of VM 0: disk 0 is a clone, 1 persistent with snapshots 0 and 2.
RUNNING = "vm-0.lcm-12"
# When the recorded image 4 was registered.
REGTIME = 1795245245


@pytest.fixture
def front(front: FrontEnd) -> FrontEnd:
    for image_id in (3, 4, 20):
        owner = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=image_id, regtime=REGTIME)
        front.cloud.volumes["nas1", "tank", f"one-{image_id}"] = Volume(128 * MIB, owner)
    return front


@pytest.fixture
def oned(front: FrontEnd, tmp_path: Path) -> Iterator[Oned]:
    with serving(tmp_path) as (server, auth):
        front.api = Api(server.url, auth)
        server.vm(RUNNING)
        yield server


@pytest.fixture
def vm(front: FrontEnd, oned: Oned) -> FrontEnd:
    """VM 0 with its clone and its persistent disk on host01."""
    front.start()
    twice(front, transfer_call("7.5", "clone", "vm:nas1/tank/one-3", f"{DISK}0", "0", "102"))
    twice(front, transfer_call("7.5", "ln", "vm:nas1/tank/one-4", f"{DISK}1", "0", "102"))
    return front


def volume(front: FrontEnd, name: str) -> Volume:
    found = front.cloud.volume(f"nas1/tank/{name}")
    assert found is not None
    return found


def twice(front: FrontEnd, call: Recorded) -> str:
    stderr = ""
    for _ in range(2):
        stdout, stderr, status = front.run(call)
        assert (stdout, status) == ("", 0), stderr
    return stderr


def refused(front: FrontEnd, call: Recorded) -> str:
    stdout, stderr, status = front.run(call)
    assert (stdout, status) == ("", 1)
    return stderr


def test_a_vm_s_snapshots_are_made_gone_back_to_and_deleted_as_recorded(vm: FrontEnd) -> None:
    image, clone = volume(vm, "one-4"), volume(vm, "one-3-0-0")
    image.content = "first"

    live = twice(vm, transfer_call("7.5", "snap_create_live"))
    image.content = "second"
    twice(vm, transfer_call("7.5", "snap_create"))
    made = dict(image.snapshots)
    twice(vm, transfer_call("7.5", "snap_revert"))
    reverted = image.content
    clone.snapshots["snap-0"] = "x"
    twice(vm, transfer_call("7.5", "snap_delete"))

    assert made == {"snap-0": "first", "snap-1": "second"} == image.snapshots
    assert reverted == "first"
    assert clone.snapshots == {}
    assert "INFO: 0 snap_create_live: this snapshot is crash-consistent" in live


# As the recorded VM was called by its hypervisor.
GUEST = "one-vm-275"


def test_a_guest_that_can_is_frozen_while_the_storage_takes_the_snapshot(vm: FrontEnd) -> None:
    vm.cloud.frozen[GUEST] = None
    vm.cloud.asked.clear()

    _, stderr, status = vm.run(transfer_call("7.5", "snap_create_live"))

    assert status == 0
    assert [type(request) for _, request, _ in vm.cloud.asked] == [m.FreezeGuest, m.SnapshotZvol, m.ThawGuest]
    assert "the guest's filesystems were frozen" in stderr


def test_a_guest_is_thawed_when_the_snapshot_fails(vm: FrontEnd) -> None:
    vm.cloud.frozen[GUEST] = None
    vm.cloud.fail("nas1", m.SnapshotZvol, OutOfSpace("pool tank is full"))

    assert "pool tank is full" in refused(vm, transfer_call("7.5", "snap_create_live"))

    assert len(vm.cloud.requests(m.ThawGuest)) == 1


@pytest.mark.parametrize(
    ("reason", "thaws"),
    [
        (ProtocolError("action_unsupported: 'freeze_guest' is no action of this agent"), 0),
        (Unreachable("nobody serves node1"), 0),
        (NoReply("node1 did not answer in time"), 1),
    ],
)
def test_a_host_that_does_not_freeze_the_guest_stops_no_snapshot(vm: FrontEnd, reason: OnelunError, thaws: int) -> None:
    vm.cloud.fail("node1", m.FreezeGuest, reason)

    _, stderr, status = vm.run(transfer_call("7.5", "snap_create_live"))

    assert status == 0
    assert f"crash-consistent, since the guest was not frozen: {reason.sentence}" in stderr
    assert "snap-0" in volume(vm, "one-4").snapshots
    assert len(vm.cloud.requests(m.ThawGuest)) == thaws


def test_a_disk_is_saved_as_recorded_as_it_is_and_as_it_was(vm: FrontEnd) -> None:
    image, saved = volume(vm, "one-4"), volume(vm, "one-20")
    image.content, image.snapshots = "now", {"snap-0": "then"}

    twice(vm, transfer_call("7.5", "cpds"))
    current = saved.content
    twice(vm, transfer_call("7.5", "cpds", f"{DISK}1", "nas1/tank/one-20", "0", "0", "102"))

    assert (current, saved.content) == ("now", "then")
    assert image.hosts == {"node1": f"{VM}/disk.1"}


def test_a_stopped_vm_s_disk_is_saved_from_the_front_end(vm: FrontEnd) -> None:
    disk = volume(vm, "one-3-0-0")
    disk.content = "now"
    disk.hosts.clear()

    twice(vm, transfer_call("7.5", "cpds", f"{DISK}0".replace("host01", "vm"), "nas1/tank/one-20", "-1", "0", "102"))

    assert volume(vm, "one-20").content == "now"


def test_a_disk_is_saved_although_its_host_is_dead(vm: FrontEnd) -> None:
    vm.cloud.dead.add("node1")

    twice(vm, transfer_call("7.5", "cpds"))


@pytest.mark.parametrize("release", RELEASES)
def test_an_image_s_snapshots_as_recorded(front: FrontEnd, release: str) -> None:
    front.start(release)
    image = volume(front, "one-4")
    image.content, image.snapshots = "now", {"snap-0": "zero", "snap-1": "one", "snap-2": "two"}

    twice(front, datastore_call(release, "snap_delete"))
    deleted = dict(image.snapshots)
    twice(front, datastore_call(release, "snap_revert"))
    reverted = image.content, dict(image.snapshots)
    twice(front, datastore_call(release, "snap_flatten"))

    assert deleted == {"snap-1": "one", "snap-2": "two"}
    assert reverted == ("two", deleted)
    assert (image.content, image.snapshots) == ("flattened snap-2", {})


def test_another_image_of_the_id_keeps_its_snapshots(front: FrontEnd) -> None:
    front.start("6.10")
    image = volume(front, "one-4")
    image.content, image.snapshots = "now", {"snap-0": "zero", "snap-2": "two"}

    for name in ("snap_delete", "snap_revert", "snap_flatten"):
        assert "is another's" in refused(front, datastore_call("6.10", name, REGTIME="5"))

    assert (image.content, len(image.snapshots)) == ("now", 2)


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"TARGET_SNAPSHOT": "-1"}, "IMAGE/TARGET_SNAPSHOT should be a number from 0"),
        ({"TARGET_SNAPSHOT": ""}, "IMAGE/TARGET_SNAPSHOT should be a number from 0"),
        ({"TARGET_SNAPSHOT": "x"}, "IMAGE/TARGET_SNAPSHOT of OpenNebula's document is 'x', which is no number"),
        ({"TARGET_SNAPSHOT": "7"}, "has no snapshot snap-7"),
        ({"SOURCE": ""}, "has no IMAGE/SOURCE"),
        ({"SOURCE": "onelun/one-4"}, "is no SOURCE of onelun"),
        ({"SOURCE": "nas1/tank/one-77"}, "there is no volume one-77"),
    ],
)
@pytest.mark.parametrize("name", ["snap_revert", "snap_flatten"])
def test_a_document_that_names_no_snapshot_is_a_clear_error(
    front: FrontEnd, name: str, elements: dict[str, str], reason: str
) -> None:
    front.start("6.10")
    volume(front, "one-4").snapshots["snap-0"] = "zero"

    stderr = refused(front, datastore_call("6.10", name, **elements))

    assert reason in stderr
    assert stderr.count("\n") == 1
    assert volume(front, "one-4").snapshots == {"snap-0": "zero"}


@pytest.mark.parametrize(
    ("name", "argv", "reason"),
    [
        ("snap_create", (f"{DISK}1", "x"), "is no id of oned's"),
        ("snap_create", (f"{DISK}1", "-1"), "is no id of oned's"),
        ("snap_create", (f"{DISK}1", "1" * 10), "is no id of oned's"),
        ("snap_create", (f"{DISK}1",), "the arguments should be: snap_create"),
        ("snap_create", (f"host01:{VM}", "0"), "is a directory"),
        ("snap_create", (f"{DISK}1".replace("/0/", "/7/"), "0"), "the call is for VM 0"),
        ("snap_create", (f"{DISK}9", "0"), "no volume of onelun is known behind disk 9 of VM 0"),
        ("snap_revert", (f"{DISK}1", "9"), "one-4 in pool tank has no snapshot snap-9"),
        ("snap_revert", (f"{DISK}1".replace("host01", "host09"), "9"), "nobody serves the host 'host09'"),
        ("snap_revert", (f"{DISK}9", "0"), "no volume of onelun is known behind disk 9 of VM 0"),
        ("cpds", (f"{DISK}1", "onelun/one-20", "-1"), "is no SOURCE of onelun"),
        ("cpds", (f"{DISK}1", "nas1/tank/one-77", "-1"), "there is no image one-77"),
        ("cpds", (f"{DISK}1", "nas2/tank/one-20", "-1"), "would copy from pool to pool"),
        ("cpds", (f"{DISK}1", "nas1/tank/one-20", "-2"), "is no id of oned's"),
        ("cpds", (f"{DISK}1", "nas1/tank/one-20", "8"), "has no snapshot snap-8"),
        ("cpds", (f"{DISK}1", "nas1/tank/one-20"), "the arguments should be: cpds"),
    ],
)
def test_bad_arguments_are_a_clear_error(vm: FrontEnd, name: str, argv: tuple[str, ...], reason: str) -> None:
    stderr = refused(vm, transfer_call("7.5", name, *argv, "0", "102"))

    assert reason in stderr
    assert volume(vm, "one-4").snapshots == {}
    assert volume(vm, "one-20").content == ""


def test_deleting_a_snapshot_of_a_disk_that_is_gone_is_done(vm: FrontEnd) -> None:
    twice(vm, transfer_call("7.5", "delete", f"{DISK}0", "0", "102"))

    twice(vm, transfer_call("7.5", "snap_delete"))
    twice(vm, transfer_call("7.5", "snap_delete", f"{DISK}9", "0", "0", "102"))


def test_the_storage_hears_when_oned_had_the_snapshot_made(vm: FrontEnd) -> None:
    twice(vm, transfer_call("7.5", "snap_create", f"{DISK}1", "2", "0", "102"))
    twice(vm, transfer_call("7.5", "snap_create", f"{DISK}1", "3", "0", "102"))

    assert [request.not_before for request in vm.cloud.requests(m.SnapshotZvol)] == [1795245359, 1795245359, None, None]


def test_a_full_pool_and_an_open_device_are_named(vm: FrontEnd) -> None:
    vm.cloud.fail("nas1", m.SnapshotZvol, OutOfSpace("pool tank has 0.1 GiB free below its high-water mark"))
    full = refused(vm, transfer_call("7.5", "snap_create"))
    volume(vm, "one-4").snapshots["snap-0"] = "x"
    busy = Busy("/dev/sdb is open on node1")
    vm.finish_s = 1.0
    vm.cloud.fail("nas1", m.RevertZvol, *[busy] * 20)
    began = time.monotonic()
    opened = refused(vm, transfer_call("7.5", "snap_revert"))

    assert full == error(
        "7.5", "cannot take a snapshot of disk.1 on host01: pool tank has 0.1 GiB free below its high-water mark"
    )
    assert opened == error("7.5", "cannot revert disk.1 on host01: /dev/sdb is open on node1")
    assert time.monotonic() - began < 60


def test_an_image_that_will_be_saved_to_is_made_beside_the_disk_s_image(front: FrontEnd) -> None:
    front.start("7.5")
    image = front.cloud.volumes.pop(("nas1", "tank", "one-4"))
    front.cloud.volumes["nas2", "tank", "one-4"] = image
    saving = "<SAVED_DISK_ID>1</SAVED_DISK_ID><SAVED_IMAGE_ID>4</SAVED_IMAGE_ID><SAVED_VM_ID>0</SAVED_VM_ID>"
    text = document("mkfs").replace("<TEMPLATE><DEV_PREFIX>", f"<TEMPLATE>{saving}<DEV_PREFIX>", 1)

    stdout, stderr, status = front.run(datastore_call("7.5", "mkfs", text))

    assert (stdout, status) == ("nas2/tank/one-9\n", 0), stderr
