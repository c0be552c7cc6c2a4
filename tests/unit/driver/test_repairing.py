"""Repairing: what is asked of whom, in which order, after which second look, and when nothing is asked at all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.support.oned import Oned, serving
from tests.support.views import CLOUD, DONE, RUNNING, Cloud, vm_disk

from onelun.config import Limits
from onelun.driver.api import Api
from onelun.driver.reconcile.repairing import Repairing
from onelun.driver.registered import Registered
from onelun.errors import Busy, Conflict, Rejected, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc.message import Settle, Settled, TrashZvol, UnmapZvol, ZvolTrashed, ZvolUnmapped

TO_BE_STARTED = "<VM><ID>9</ID><STATE>{}</STATE><LCM_STATE>{}</LCM_STATE></VM>"


class Nas:
    """Does in the small cloud's views what a NAS would do."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.asked: list[object] = []
        self.refuses: dict[type, Exception] = {}
        self.failed: dict[str, str] = {}

    async def ask(self, node, request, *, deadline, id=None, on_progress=None):
        self.asked.append(request)
        if type(request) in self.refuses:
            raise self.refuses[type(request)]
        match request:
            case TrashZvol():
                return ZvolTrashed(trashed=self.cloud.volumes.pop(request.zvol, None) is not None)
            case UnmapZvol():
                self.cloud.forget(request.zvol)
                return ZvolUnmapped()
            case Settle():
                self.cloud.links["node1"]["/ds/103/7/disk.1"] = "/dev/onelun/nas1/tank/one-2"
                return Settled(exported=0, ended=(), failed=self.failed)
        raise AssertionError(request)


class Front:
    """The pieces of one front-end. `oned` is asked again before each repair; it knows what the cloud's views say."""

    def __init__(self, oned: Oned, auth: str) -> None:
        self.cloud = Cloud()
        self.nas = Nas(self.cloud)
        self.oned = oned
        self.looks = 0
        self.repairing = Repairing(self._view, Limits(), Api(oned.url, auth), self.nas)

    def orphan(self, vm: int = 9) -> None:
        self.cloud.vm(vm, DONE, host="", disks=[])
        self.cloud.vms[vm] = self.cloud.vms[vm] and _bare(self.cloud.vms[vm])
        self.oned.documents["vm", vm] = TO_BE_STARTED.format(6, 0).replace("<ID>9", f"<ID>{vm}")
        self.cloud.volume(f"one-1-{vm}-0", Owner(Kind.DISK, CLOUD, image_id=1, vm_id=vm, disk_id=0))

    async def _view(self):
        self.looks += 1
        return self.cloud.view()


def _bare(vm):
    return msgspec.structs.replace(vm, hostname=None)


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with serving(tmp_path) as (oned, auth):
        yield Front(oned, auth)


async def test_looking_changes_nothing_and_a_cloud_without_differences_is_looked_at_once(front):
    assert (await front.repairing.look())[1] == []
    assert front.looks == 1
    front.orphan()

    assert [str(each.type) for each in (await front.repairing.look())[1]] == ["orphan volume"]
    assert front.nas.asked == []


async def test_what_only_the_first_look_shows_is_no_difference(front):
    front.orphan()
    view = front.repairing._view

    async def shrinking():
        seen = await view()
        front.cloud.volumes.pop("one-1-9-0", None)
        return seen

    front.repairing._view = shrinking

    assert (await front.repairing.look())[1] == []


async def test_what_only_the_second_look_shows_is_no_difference_yet(front):
    front.orphan(9)
    view = front.repairing._view

    async def growing():
        seen = await view()
        front.orphan(10)
        return seen

    front.repairing._view = growing

    assert [each.what for each in (await front.repairing.look())[1]] == ["nas1/tank/one-1-9-0"]


async def test_an_orphan_goes_to_the_trash_and_then_nothing_differs(front):
    front.orphan()

    report = await front.repairing.apply(at_most=10, images=False)

    assert [type(asked) for asked in front.nas.asked] == [TrashZvol]
    assert [each.failed for each in report.tried] == [None]
    assert report.left == ()


async def test_who_has_a_volume_lets_go_before_it_goes_to_the_trash(front):
    front.orphan()
    front.cloud.attach("one-1-9-0", "node2", 9, 0)

    report = await front.repairing.apply(at_most=10, images=False)

    assert [type(asked) for asked in front.nas.asked] == [UnmapZvol, TrashZvol]
    assert report.left == ()


async def test_a_repair_that_somebody_is_in_the_way_of_is_tried_once_more(front, monkeypatch):
    front.orphan()
    front.cloud.attach("one-1-9-0", "node2", 9, 0)
    ask = front.nas.ask

    async def busy_at_first(node, request, **options):
        if not front.nas.asked:
            front.nas.asked.append(request)
            raise Busy("/dev/loop0 was opened while it was being disconnected")
        return await ask(node, request, **options)

    monkeypatch.setattr(front.nas, "ask", busy_at_first)

    report = await front.repairing.apply(at_most=10, images=False)

    assert [type(asked) for asked in front.nas.asked] == [UnmapZvol, UnmapZvol, TrashZvol]
    assert [each.failed for each in report.tried] == [None, None]
    assert report.left == ()


async def test_a_repair_that_is_refused_twice_is_left_and_keeps_no_other_waiting(front):
    front.orphan(9)
    front.orphan(10)
    front.cloud.attach("one-1-9-0", "node2", 9, 0)
    front.nas.refuses[UnmapZvol] = Busy("/dev/loop0 is in use: process 7 (qemu)")

    report = await front.repairing.apply(at_most=10, images=False)

    assert [type(asked) for asked in front.nas.asked[:3]] == [UnmapZvol, UnmapZvol, TrashZvol]
    assert "/dev/loop0 is in use: process 7 (qemu)" in [each.failed for each in report.tried]
    assert "one-1-10-0" not in front.cloud.volumes


async def test_a_vm_that_oned_tells_otherwise_by_now_keeps_its_volume(front):
    front.orphan()
    front.oned.documents["vm", 9] = TO_BE_STARTED.format(3, 3)

    report = await front.repairing.apply(at_most=10, images=False)

    assert front.nas.asked == []
    assert [each.failed for each in report.tried] == [
        "VM 9 is no longer as it was when it was compared: nothing was done"
    ]
    assert len(report.left) == 1


async def test_an_oned_that_does_not_answer_any_more_is_no_reason_to_remove(front):
    front.orphan()
    front.oned.broken = b"<html>busy</html>"

    report = await front.repairing.apply(at_most=10, images=False)

    assert front.nas.asked == []
    assert (report.tried[0].failed or "").startswith("oned does not answer at ")


async def test_an_image_goes_only_when_asked_for_and_only_while_oned_does_not_know_it(front):
    front.cloud.images[3] = None
    front.cloud.volume("one-3", Owner(Kind.IMAGE, CLOUD, image_id=3, regtime=103))

    report = await front.repairing.apply(at_most=10, images=False)
    assert (front.nas.asked, len(report.left)) == ([], 1)

    front.oned.documents["image", 3] = "<IMAGE><ID>3</ID><STATE>1</STATE></IMAGE>"
    report = await front.repairing.apply(at_most=10, images=True)
    assert (front.nas.asked, report.tried[0].failed) == ([], "oned knows image 3 by now: its volume stays")

    del front.oned.documents["image", 3]
    assert (await front.repairing.apply(at_most=10, images=True)).left == ()


async def test_more_than_a_few_are_removed_only_by_their_number(front):
    for vm in (9, 10, 11):
        front.orphan(vm)

    with pytest.raises(Rejected, match=r"^3 volumes would go to the trash, and at most 2 may: .* --at-most 3;"):
        await front.repairing.apply(at_most=2, images=False)
    assert front.nas.asked == []
    assert (await front.repairing.apply(at_most=3, images=False)).left == ()


async def test_what_comes_up_while_others_are_repaired_is_not_removed_beyond_the_number(front):
    front.orphan(9)
    ask = front.nas.ask

    async def and_another(*arguments, **named):
        if front.cloud.vms.get(10) is None:
            front.orphan(10)
        return await ask(*arguments, **named)

    front.nas.ask = and_another

    report = await front.repairing.apply(at_most=1, images=False)

    assert [asked.zvol for asked in front.nas.asked] == ["one-1-9-0"]
    assert [each.what for each in report.left] == ["nas1/tank/one-1-10-0"]


async def test_a_repair_that_is_refused_is_told_and_keeps_no_other(front):
    front.orphan()
    front.cloud.links["node1"]["/ds/103/7/disk.1"] = "/somewhere/else"
    front.nas.refuses[TrashZvol] = Conflict("one-1-9-0 is exported as x: it stays")

    report = await front.repairing.apply(at_most=10, images=False)

    assert [(str(each.difference.type), each.failed) for each in report.tried] == [
        ("wrong link", None),
        ("orphan volume", "one-1-9-0 is exported as x: it stays"),
    ]
    assert [str(each.type) for each in report.left] == ["orphan volume"]


async def test_a_host_that_could_not_be_told_is_a_failure(front):
    front.cloud.links["node1"]["/ds/103/7/disk.1"] = "/somewhere/else"
    front.nas.failed = {"node1": "no agent called node1 is connected to the broker"}

    report = await front.repairing.apply(at_most=10, images=False)

    assert [each.failed for each in report.tried] == ["no agent called node1 is connected to the broker"]


async def test_an_unknown_outcome_is_told(front):
    front.orphan()
    front.nas.refuses[TrashZvol] = Unreachable("no agent called nas1 is connected to the broker")

    report = await front.repairing.apply(at_most=10, images=False)

    assert report.tried[0].failed == "no agent called nas1 is connected to the broker"


async def test_another_clouds_oned_repairs_nothing(front):
    front.orphan()
    front.cloud.images[2] = Registered(2, 1, "nas1/tank/one-2", 999)

    with pytest.raises(Rejected, match="another cloud's"):
        await front.repairing.apply(at_most=10, images=True)
    assert front.nas.asked == []


@pytest.mark.parametrize("images", [{}, {1: None, 2: None}], ids=["empty", "none"])
async def test_an_oned_with_an_empty_list_removes_and_detaches_nothing(front, images):
    front.orphan()
    front.cloud.images = images
    front.cloud.vms = dict.fromkeys(front.cloud.vms)
    front.cloud.vm(9, DONE)

    report = await front.repairing.apply(at_most=10, images=True)

    assert front.nas.asked == []
    assert report.tried == ()
    assert report.left


async def test_a_vm_that_has_begun_to_move_keeps_what_it_has(front):
    front.cloud.vm(7, RUNNING, disks=[vm_disk(0)])
    front.oned.vm("vm-0.lcm-4", 7, lcm=4, state=3, host="host01")

    report = await front.repairing.apply(at_most=10, images=False)

    assert front.nas.asked == []
    assert {str(each.difference.type) for each in report.tried} >= {"orphan attachment"}
