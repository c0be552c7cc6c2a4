"""The comparison of three views: what each difference is called, and when it may be repaired."""

from __future__ import annotations

import msgspec
import pytest
from tests.support.views import CLOUD, DONE, HOTPLUG, LONG_AGO, NOW, RUNNING, STOPPED, Cloud, vm_disk

from onelun.driver.reconcile.comparing import compare, witnesses
from onelun.driver.reconcile.differences import Difference
from onelun.driver.registered import Registered
from onelun.errors import Rejected
from onelun.model import Kind, Owner
from onelun.naming import Source, target_iqn
from onelun.rpc.message import Settle, StockTarget, TrashZvol, UnmapZvol

ORPHAN = Owner(Kind.DISK, CLOUD, image_id=1, vm_id=9, disk_id=0)


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


def told(cloud: Cloud) -> list[tuple[str, str]]:
    return [(str(each.type), each.what) for each in compare(cloud.view())]


def one(cloud: Cloud) -> Difference:
    found = compare(cloud.view())
    assert len(found) == 1, found
    return found[0]


def iqn(name: str, epoch: int = 1) -> str:
    return target_iqn(Source("nas1", "tank", name), epoch)


def test_nothing_differs_where_all_views_agree(cloud):
    assert compare(cloud.view()) == []
    assert witnesses(cloud.view()) == 2


def test_a_volume_of_a_vm_that_is_done_goes_to_the_trash(cloud):
    cloud.vm(9, DONE, disks=[vm_disk(0)])
    volume = cloud.volume("one-1-9-0", ORPHAN)

    found = one(cloud)

    assert (found.type, found.what, found.why) == ("orphan volume", "nas1/tank/one-1-9-0", "VM 9 is done")
    asked = TrashZvol(zvol="one-1-9-0", zpool="tank", uuid=volume.uuid, owner=ORPHAN, older_s=3600.0)
    assert (found.repair.request, found.repair.vm) == (asked, 9)


def test_a_disk_that_its_vm_has_no_more_goes_to_the_trash(cloud):
    cloud.volume("one-1-7-5", msgspec.structs.replace(ORPHAN, vm_id=7, disk_id=5))

    assert (one(cloud).why, one(cloud).repair.vm) == ("VM 7 has no disk 5 that is this volume", 7)


@pytest.mark.parametrize("etime", [NOW - 10, NOW + 10])
def test_within_the_grace_period_nothing_is_removed(cloud, etime):
    cloud.vm(9, DONE, disks=[vm_disk(0)])
    cloud.vms[9] = msgspec.structs.replace(cloud.vms[9], etime=int(etime))
    cloud.volume("one-1-9-0", ORPHAN)

    assert one(cloud).repair is None
    assert one(cloud).todo.startswith("wait: its grace period ends in ")


def test_a_young_volume_is_not_removed_whenever_its_vm_ended(cloud):
    cloud.vm(9, DONE)
    cloud.volume("one-1-9-0", ORPHAN, made_at=NOW - 10)

    assert one(cloud).repair is None


@pytest.mark.parametrize(
    ("vm", "changes", "why"),
    [
        (None, {}, "oned has no VM 9 at all"),
        (DONE, {"made_at": LONG_AGO - 100_000}, "it was made before the VM 9 that oned has"),
        (DONE, {"made_at": 0.0}, "VM 9 is done; its age is not known"),
    ],
    ids=["purged", "earlier-vm", "no-age"],
)
def test_what_only_looks_like_an_orphan_is_left_to_a_person(cloud, vm, changes, why):
    cloud.vms[9] = None
    if vm is not None:
        cloud.vm(9, vm)
    cloud.volume("one-1-9-0", ORPHAN, **changes)

    assert one(cloud).why.startswith(why)
    assert one(cloud).repair is None


def test_a_nas_that_lost_its_catalogue_is_asked_to_remove_nothing(cloud):
    cloud.vm(9, DONE)
    cloud.volume("one-1-9-0", ORPHAN)
    cloud.cautious = True

    assert one(cloud).repair is None


@pytest.mark.parametrize("state", [HOTPLUG, (3, 1), (3, 4), (3, 15), (1, 0), (3, 42)])
def test_nothing_is_concluded_of_a_vm_in_the_middle_of_something(cloud, state):
    cloud.vm(7, state, "host02", disks=[])

    assert compare(cloud.view()) == []


@pytest.mark.parametrize("state", [RUNNING, (3, 16), (8, 0), (5, 0)])
def test_a_vm_keeps_its_disks_on_its_host_also_when_it_is_off_or_not_heard_of(cloud, state):
    cloud.vm(7, state)

    assert compare(cloud.view()) == []


def test_an_image_unknown_to_oned_is_named_and_goes_to_the_trash_only_when_asked_for(cloud):
    cloud.images[3] = None
    cloud.volume("one-3", Owner(Kind.IMAGE, CLOUD, image_id=3, regtime=103))

    found = one(cloud)

    assert (found.type, found.what) == ("image unknown to oned", "nas1/tank/one-3")
    assert found.todo == "put it into the pool's trash (with --images)"
    assert found.repair.image == 3


def test_an_image_that_is_being_made_is_not_unknown(cloud):
    cloud.images[3] = Registered(3, 4, "", 103)
    cloud.volume("one-3", Owner(Kind.IMAGE, CLOUD, image_id=3, regtime=103))

    assert compare(cloud.view()) == []


def test_a_volume_that_was_adopted_is_left_to_a_person(cloud):
    cloud.volume("legacy", Owner(Kind.IMAGE, CLOUD))
    assert (one(cloud).type, one(cloud).repair) == ("image unknown to oned", None)

    cloud.images[3] = Registered(3, 1, "nas1/tank/legacy", 103)
    assert compare(cloud.view()) == []


def test_images_and_disks_without_a_volume_are_named(cloud):
    cloud.images[3] = Registered(3, 1, "nas1/tank/one-3", 103)
    cloud.vm(7, disks=[*cloud.vms[7].disks.values(), vm_disk(4), vm_disk(5, clone=None)])

    assert told(cloud) == [
        ("volume missing", "nas1/tank/one-1-7-4"),
        ("volume missing", "nas1/tank/one-3"),
        ("volume missing", "one-vm-7-5"),
    ]
    cloud.volume("one-3", Owner(Kind.IMAGE, CLOUD, image_id=3, regtime=103), state="trash")
    assert "trash" in next(each.todo for each in compare(cloud.view()) if each.what == "nas1/tank/one-3")


def test_a_pool_that_failed_is_named_and_nothing_is_missed_there(cloud):
    cloud.images[3] = Registered(3, 1, "nas1/tank/one-3", 103)
    cloud.failed = {"tank": "pool tank does not answer"}

    assert told(cloud) == [("not asked", "nas1/tank")]


def test_a_nas_that_does_not_answer_is_named_alone(cloud):
    cloud.away["nas1"] = "no agent called nas1 is connected to the broker"

    assert told(cloud) == [("not asked", "nas1")]
    assert witnesses(cloud.view()) == 0


def test_a_nas_that_the_configuration_forgot_is_named(cloud):
    cloud.vm(8, disks=[vm_disk(0, "nas2/tank/one-5"), msgspec.structs.replace(vm_disk(1, "a/b/c"), tm_mad="ceph")])

    assert (told(cloud), one(cloud).todo) == ([("not asked", "nas2")], "add it to frontend.nas")


def test_an_export_that_is_missing_is_made_again(cloud):
    del cloud.targets[iqn("one-2")]

    assert (one(cloud).type, one(cloud).repair.request) == ("missing export", Settle())
    cloud.change("one-2", state="unknown")
    assert compare(cloud.view()) == []


def test_an_orphan_export_ends_unless_somebody_is_logged_in(cloud):
    cloud.targets["x"] = StockTarget(iscsi_target=iqn("one-2", 9))
    assert (one(cloud).type, one(cloud).repair.request) == ("orphan export", Settle())

    cloud.targets["x"] = StockTarget(iscsi_target=iqn("one-2", 9), sessions=("iqn.2026-11.io.onelun.host:node9",))
    assert one(cloud).repair is None

    cloud.targets["x"] = StockTarget(iscsi_target=iqn("one-2", 9), leased=True)
    assert compare(cloud.view()) == []


@pytest.mark.parametrize("nas", ["nas1", None])
def test_a_stale_session_is_let_go_of_by_its_host(cloud, nas):
    target = iqn("one-2", 9)
    device = next(iter(cloud.devices["node1"].values()))
    cloud.devices["node2"][target] = msgspec.structs.replace(device, target=target, nas=nas)

    found = one(cloud)

    assert (found.type, found.what, found.host) == ("stale session", target, "node2")
    assert found.repair.request == Settle(remotehosts=("node2",))


def test_another_programs_session_is_none_of_ours(cloud):
    device = next(iter(cloud.devices["node1"].values()))
    cloud.devices["node2"]["iqn.2001-05.com.example:x"] = msgspec.structs.replace(
        device, target="iqn.2001-05.com.example:x", nas=None
    )

    assert compare(cloud.view()) == []


@pytest.mark.parametrize("alive", [True, False])
def test_a_device_that_is_missing_or_dead_is_connected(cloud, alive):
    device = cloud.devices["node1"].pop(iqn("one-2"))
    if not alive:
        cloud.devices["node1"][iqn("one-2")] = msgspec.structs.replace(device, alive=False)

    found = one(cloud)

    assert (found.type, found.repair.request) == ("missing device", Settle(remotehosts=("node1",)))


@pytest.mark.parametrize(
    ("text", "kind", "repaired"),
    [("", "missing link", True), ("/dev/onelun/nas1/tank/one-1", "wrong link", True), (None, "wrong link", False)],
    ids=["missing", "wrong", "no-link"],
)
def test_links_are_compared_with_what_they_lead_to(cloud, text, kind, repaired):
    cloud.links["node1"]["/ds/103/7/disk.1"] = text
    if text == "":
        del cloud.links["node1"]["/ds/103/7/disk.1"]

    found = one(cloud)

    assert (found.type, found.what, found.host) == (kind, "/ds/103/7/disk.1", "node1")
    assert (found.repair is not None) == repaired


def test_what_postmigrate_left_behind_ends_as_postmigrate_would_have_ended_it(cloud):
    cloud.vm(7, RUNNING, "host02")
    for disk, name in enumerate(("one-1-7-0", "one-2", "one-vm-7-2")):
        cloud.attach(name, "node2", 7, disk, epoch=2)

    found = compare(cloud.view())

    assert [(each.type, each.host, each.why) for each in found] == [
        ("orphan attachment", "node1", "VM 7 is on node2")
    ] * 3
    assert found[1].repair.request == UnmapZvol(
        zvol="one-2",
        zpool="tank",
        uuid="uuid-of-one-2",
        remotehost="node1",
        cloud=CLOUD,
        vm=7,
        disk=1,
        path="/ds/103/7/disk.1",
        keep_link=True,
        stays="node2",
        needs=("stays",),
    )


def test_what_delete_left_behind_is_let_go_of_and_only_the_vms_own_goes(cloud):
    cloud.vm(7, DONE)

    found = compare(cloud.view())

    assert [(str(each.type), each.what) for each in found] == [
        ("orphan attachment", "nas1/tank/one-1-7-0"),
        ("orphan attachment", "nas1/tank/one-2"),
        ("orphan attachment", "nas1/tank/one-vm-7-2"),
        ("orphan volume", "nas1/tank/one-1-7-0"),
        ("orphan volume", "nas1/tank/one-vm-7-2"),
    ]
    request = found[1].repair.request
    assert (request.vm, request.keep_link, request.force, request.stays) == (7, False, False, None)


def test_a_vm_that_is_stopped_has_no_disk_on_a_host_and_keeps_its_volumes(cloud):
    cloud.vm(7, STOPPED)

    assert {(each.type, each.why, each.repair.request.keep_link) for each in compare(cloud.view())} == {
        ("orphan attachment", "VM 7 is on no host", True)
    }


def test_the_attachment_of_a_dead_host_is_fenced_only_when_oned_says_that_the_vm_is_elsewhere(cloud):
    cloud.away["node1"] = "no agent called node1 is connected to the broker"
    assert told(cloud) == [("not asked", "node1")]

    cloud.vm(7, RUNNING, "host02")
    found = [each for each in compare(cloud.view()) if each.type == "attachment of a dead host"]
    assert [each.repair.request.force for each in found] == [True] * 3


def test_a_shareable_image_stays_on_the_host_whose_vm_has_it(cloud):
    cloud.vm(8, RUNNING, "host02", disks=[vm_disk(0, "nas1/tank/one-2", clone=False)])
    cloud.attach("one-2", "node2", 8, 0, epoch=2)
    cloud.vm(7, DONE)

    found = [each for each in compare(cloud.view()) if each.what == "nas1/tank/one-2"]

    assert [(each.host, each.repair.request.vm, each.repair.request.stays) for each in found] == [("node1", 7, None)]


def test_an_attachment_without_any_vm_is_left_to_a_person(cloud):
    cloud.attach("one-1", "node2", 99, 0)
    del cloud.placements[99, 0]

    assert (one(cloud).type, one(cloud).repair) == ("orphan attachment", None)


def test_a_disk_that_is_on_no_host_where_its_vm_is_is_named(cloud):
    cloud.forget("one-2")

    assert (one(cloud).type, one(cloud).what, one(cloud).repair) == ("missing attachment", "nas1/tank/one-2", None)


@pytest.mark.parametrize("state", ["attaching", "detaching"])
def test_what_is_under_way_is_left_to_those_who_do_it(cloud, state):
    cloud.vm(7, DONE)
    cloud.change("one-2", state=state)

    assert ("orphan attachment", "nas1/tank/one-2") not in told(cloud)


def test_volumes_of_other_clouds_are_none_of_oneds(cloud):
    name = "vm-1-vol"
    cloud.attach(name, "node1", 99, 0)
    del cloud.placements[99, 0]
    assert compare(cloud.view()) == []

    cloud.devices["node1"].pop(iqn(name))
    assert one(cloud).type == "missing device"


def test_snapshots_are_compared_and_left_to_a_person(cloud):
    cloud.vms[7] = msgspec.structs.replace(cloud.vms[7], snapshots={(0, 0): 1, (1, 2): 1})
    cloud.images[1] = msgspec.structs.replace(cloud.images[1], snapshots=(4,))
    cloud.volume("one-1-7-0", cloud.volumes["one-1-7-0"].owner, snapshots=("backup-7-0", "snap-0", "snap-1"))
    cloud.volume("one-1", cloud.volumes["one-1"].owner, snapshots=("snap-4",))

    assert told(cloud) == [
        ("orphan snapshot", "nas1/tank/one-1-7-0@snap-1"),
        ("snapshot missing", "nas1/tank/one-2@snap-2"),
    ]
    assert [each.repair for each in compare(cloud.view())] == [None, None]
    cloud.volume("one-1-7-0", cloud.volumes["one-1-7-0"].owner, snapshots=None)
    cloud.volume("one-2", cloud.volumes["one-2"].owner, snapshots=None)
    assert compare(cloud.view()) == []


def test_an_oned_without_the_clouds_images_is_no_reason_for_any_repair(cloud):
    cloud.images = dict.fromkeys(cloud.images)
    cloud.vm(9, DONE)
    cloud.volume("one-1-9-0", ORPHAN)
    cloud.vms[7] = None
    cloud.targets["x"] = StockTarget(iscsi_target=iqn("one-2", 9))

    found = compare(cloud.view())

    assert {str(each.type) for each in found if each.repair is not None} == {"orphan export"}
    assert {"orphan volume", "orphan attachment", "image unknown to oned"} < {str(each.type) for each in found}


def test_an_oned_that_knows_an_image_otherwise_is_another_clouds(cloud):
    cloud.images[2] = Registered(2, 1, "nas1/tank/one-2", 999)

    with pytest.raises(Rejected, match=r"image 2 \(nas1/tank/one-2\) as registered at another time .* another cloud's"):
        compare(cloud.view())
