"""The views as they are asked for: what oned lists and says by id, what hosts have, and who could not be asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.oned import Oned, serving
from tests.support.recorded import show
from tests.support.views import CLOUD, Cloud

from onelun.config import Frontend, Limits
from onelun.driver.api import Api
from onelun.driver.reconcile.gathering import Gathering
from onelun.driver.reconcile.views import Device, HostView
from onelun.driver.registered import Registered, parse_images, parse_vm_ids
from onelun.errors import Rejected, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc.message import DevList, DirList, Entry, ListDev, ListDir, StockIs, TakeStock

AWAY = "no agent called node2 is connected to the broker"


class Agents:
    """nas1 has the small cloud's stock; node1 has devices and directories; node2 is away."""

    def __init__(self) -> None:
        self.cloud = Cloud()
        self.refuses: dict[type, Exception] = {}

    async def ask(self, node, request, *, deadline, id=None, on_progress=None):
        if type(request) in self.refuses:
            raise self.refuses[type(request)]
        match node, request:
            case "nas1", TakeStock(cloud=cloud):
                assert cloud == CLOUD
                stock = self.cloud.view().stocks["nas1"]
                assert isinstance(stock, StockIs)
                return stock
            case "node1", ListDev():
                return DevList(body=[{"target": "iqn.x", "nas": "nas1", "alive": True, "links": []}])
            case "node1", ListDir(path="/ds/103/7"):
                link = Entry(name="disk.0", kind="link", target="/dev/onelun/nas1/tank/one-1-7-0")
                others = (Entry(name="disk.1", kind="file"), Entry(name="deployment.0", kind="file"))
                return DirList(exists=True, entries=(link, *others))
        raise Unreachable(AWAY)


class Front:
    def __init__(self, oned: Oned, auth: str) -> None:
        self.oned = oned
        self.agents = Agents()
        hosts = {"host01": "node1", "host02": "node2"}
        config = Frontend(cloud=CLOUD, nas=("nas1",), hosts=hosts)
        self.view = Gathering(config, Limits(grace_s=7), Api(oned.url, auth), self.agents).view


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with serving(tmp_path) as (oned, auth):
        oned.image(1, SOURCE="nas1/tank/one-1", REGTIME="101")
        oned.vm("vm-0.lcm-4", 7, lcm=3, host="host01")
        yield Front(oned, auth)


def test_recorded_pools_are_read():
    images = {image.id: image for image in parse_images(show("oneimage-list"))}
    assert images[40] == Registered(40, 1, "nas1/tank/one-40", 1795245536)
    assert 21 in parse_vm_ids(show("onevm-list"))
    assert (parse_images("<IMAGE_POOL/>"), parse_vm_ids("<VM_POOL/>")) == ([], [])


def test_snapshots_of_images_are_read():
    of_image = "<SNAPSHOTS><SNAPSHOT><ID>0</ID></SNAPSHOT><SNAPSHOT><ID>3</ID></SNAPSHOT></SNAPSHOTS>"
    text = f"<IMAGE_POOL><IMAGE><ID>1</ID><STATE>1</STATE><SOURCE>a</SOURCE>{of_image}</IMAGE></IMAGE_POOL>"
    assert parse_images(text)[0].snapshots == (0, 3)


@pytest.mark.parametrize("text", ["", "<VM_POOL/>", "<IMAGE_POOL><IMAGE><ID>x</ID></IMAGE></IMAGE_POOL>"])
def test_another_document_is_no_empty_list(text):
    with pytest.raises(Rejected):
        parse_images(text)


async def test_oned_is_asked_by_id_of_whatever_a_nas_names(front):
    front.agents.cloud.volume("one-1-9-0", Owner(Kind.DISK, CLOUD, image_id=1, vm_id=9, disk_id=0))
    front.oned.vm("vm-0.lcm-4", 9, lcm=0, state=6)

    view = await front.view()

    assert view.oned.images == {1: Registered(1, 1, "nas1/tank/one-1", 101), 2: None}
    assert {number: vm and vm.state for number, vm in view.oned.vms.items()} == {7: 3, 9: 6}
    assert ("one.vmpool.info", -2) in front.oned.calls
    assert view.grace_s == 7


async def test_a_vm_that_oned_has_not_is_told_apart_from_one_that_was_not_asked_about(front):
    front.oned.forget(7)

    view = await front.view()

    assert view.oned.vms == {7: None}


async def test_hosts_are_told_with_the_links_that_placements_name(front):
    view = await front.view()

    links = {"/ds/103/7/disk.0": "/dev/onelun/nas1/tank/one-1-7-0", "/ds/103/7/disk.1": None}
    assert view.hosts["node1"] == HostView((Device("iqn.x", "nas1", alive=True),), links)
    assert view.hosts["node2"] == AWAY


async def test_a_directory_that_cannot_be_looked_into_is_unseen(front):
    front.agents.refuses[ListDir] = Unreachable("no")

    host = (await front.view()).host("node1")

    assert host is not None
    assert (host.links, host.unseen) == ({}, frozenset({"/ds/103/7"}))


async def test_a_nas_that_does_not_answer_is_told_by_its_sentence(front):
    front.agents.refuses[TakeStock] = Unreachable("no agent called nas1 is connected to the broker")

    view = await front.view()

    assert view.stocks == {"nas1": "no agent called nas1 is connected to the broker"}
    assert view.answered() == {}


@pytest.mark.parametrize("method", ["one.imagepool.info", "one.vmpool.info", "one.vm.info", "one.image.info"])
async def test_an_oned_that_refuses_any_question_gives_no_view(front, method):
    answer = front.oned.answer

    def refusing(asked, parameters):
        if asked == method:
            return [False, f"[{asked}] Not authorized to perform this.", 0x0200, 0, 0]
        return answer(asked, parameters)

    front.oned.answer = refusing

    with pytest.raises(Unreachable, match=f"refuses {method}"):
        await front.view()
