"""Attributes of datastores, images and disks, from OpenNebula's documents to what the NAS is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import Volume
from tests.support.oned import Oned, serving
from tests.support.recorded import RELEASES, datastore_call, document, transfer_call

from onelun.driver.api import Api
from onelun.model import Attributes, Kind, Owner, Provisioning, Wipe
from onelun.rpc import message as m

MIB = 1 << 20


def written(attributes: str) -> str:
    """NAME=VALUE, several with blanks between them, as elements of a template."""
    pairs = (one.partition("=") for one in attributes.split())
    return "".join(f"<ONELUN_{name}><![CDATA[{value}]]></ONELUN_{name}>" for name, _, value in pairs)


def attributed(name: str, image: str = "", datastore: str = "", **elements: str) -> str:
    """The recorded document, with attributes of its image and its datastore."""
    before, of_image, of_datastore = document(name, **elements).split("<TEMPLATE>")
    return f"{before}<TEMPLATE>{written(image)}{of_image}<TEMPLATE>{written(datastore)}{of_datastore}"


def image_of(front: FrontEnd, source: str, image_id: int) -> None:
    owner = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=image_id, regtime=1)
    front.cloud.volumes[tuple(source.split("/"))] = Volume(64 * MIB, owner)


def refused(run: tuple[str, str, int]) -> str:
    stdout, stderr, status = run
    assert (stdout, status, stderr.count("\n")) == ("", 1, 1)
    return stderr


@pytest.fixture
def oned(front: FrontEnd, tmp_path: Path) -> Iterator[Oned]:
    with serving(tmp_path) as (server, auth):
        front.api = Api(server.url, auth)
        server.vm("vm-0.lcm-12")
        yield server


@pytest.mark.parametrize("release", RELEASES)
def test_a_new_image_asks_for_its_own_attributes_and_then_its_datastore_s(front: FrontEnd, release: str) -> None:
    front.start(release)
    text = attributed("mkfs", "WIPE=zero VOLBLOCKSIZE=64K", "WIPE=none COMPRESSION=lz4 PROVISIONING=thick")

    _, stderr, status = front.run(datastore_call(release, "mkfs", text))

    assert status == 0, stderr
    (request,) = front.cloud.requests(m.CreateZvol)
    assert request.attributes == Attributes(64 << 10, "lz4", Provisioning.THICK, Wipe.ZERO)
    assert request.needs == ("attributes",)


def test_an_image_may_name_the_pool_that_it_goes_to(front: FrontEnd) -> None:
    front.start()

    _, stderr, status = front.run(datastore_call("7.5", "mkfs", attributed("mkfs", "POOLS=nas2/tank")))

    assert status == 0, stderr
    assert front.cloud.names() == ["nas2/tank/one-9"]


def test_a_cloned_image_has_the_blocks_of_the_one_that_it_is_cloned_from(front: FrontEnd) -> None:
    image_of(front, "nas1/tank/one-3", 3)
    front.start()
    text = attributed("clone", "VOLBLOCKSIZE=64K WIPE=zero", "VOLBLOCKSIZE=32K", PATH="nas1/tank/one-3")

    _, stderr, status = front.run(datastore_call("7.5", "clone", text))

    assert status == 0, stderr
    (request,) = front.cloud.requests(m.CloneZvol)
    assert request.attributes == Attributes(wipe=Wipe.ZERO)


@pytest.mark.parametrize("action", ["mkfs", "cp", "clone"])
@pytest.mark.parametrize(
    ("image", "datastore", "said"),
    [
        (
            "COMPRESION=lz4",
            "",
            "has the attribute ONELUN_COMPRESION, which onelun does not know: did you mean ONELUN_COM",
        ),
        ("", "THICK=yes", "datastore img_onelun has the attribute ONELUN_THICK, which onelun does not know: did you"),
        ("WIPE=maybe", "", "is 'maybe': it should be none or discard or zero"),
        ("", "VOLBLOCKSIZE=17K", "ONELUN_VOLBLOCKSIZE of datastore img_onelun is '17K': it should be a power of two"),
        ("POOLS=nas3/tank", "", "has nas3/tank, which its datastore img_onelun does not have"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nobody_is_asked(
    front: FrontEnd, action: str, image: str, datastore: str, said: str
) -> None:
    front.start()

    stderr = refused(front.run(datastore_call("7.5", action, attributed(action, image, datastore))))

    assert said in stderr
    assert front.cloud.asked == []


def test_a_wrong_attribute_stands_in_the_way_of_no_removal_and_no_monitoring(front: FrontEnd) -> None:
    image_of(front, "nas1/tank/one-13", 13)
    front.start()
    rm = attributed("rm", "WIPE=maybe", "THICK=yes", SOURCE="nas1/tank/one-13", ID="13", REGTIME="1")
    monitor = document("monitor").replace("<TEMPLATE>", f"<TEMPLATE>{written('THICK=yes')}")

    runs = [front.run(datastore_call("7.5", "rm", rm)), front.run(datastore_call("7.5", "monitor", monitor))]

    assert [status for _, _, status in runs] == [0, 0], runs
    assert front.cloud.names() == []


@pytest.mark.parametrize("release", [release for release in RELEASES if release != "3.4"])
def test_a_cloned_disk_asks_for_what_oned_gathered_for_it(front: FrontEnd, oned: Oned, release: str) -> None:
    image_of(front, "nas1/tank/one-3", 3)
    oned.disk(
        0, 0, CLONE="YES</CLONE><ONELUN_WIPE>zero</ONELUN_WIPE><ONELUN_COMPRESSION>off</ONELUN_COMPRESSION><CLONE>YES"
    )
    front.start(release)

    _, stderr, status = front.run(transfer_call(release, "clone"))

    assert status == 0, stderr
    (request,) = front.cloud.requests(m.CloneZvol)
    assert (request.attributes, request.needs) == (Attributes(compression="off", wipe=Wipe.ZERO), ("attributes",))


@pytest.mark.parametrize(
    ("attribute", "said"),
    [
        ("<ONELUN_WIPE>no</ONELUN_WIPE>", "ONELUN_WIPE of disk 0 is 'no': it should be none or discard or zero"),
        ("<ONELUN_QOS>9</ONELUN_QOS>", "disk 0 has the attribute ONELUN_QOS, which onelun does not know: did you mean"),
        (
            "<ONELUN_VOLBLOCKSIZE>8K</ONELUN_VOLBLOCKSIZE>",
            "disk 0 has ONELUN_VOLBLOCKSIZE, which is for datastores and",
        ),
    ],
)
def test_a_disk_with_a_wrong_attribute_is_not_made(front: FrontEnd, oned: Oned, attribute: str, said: str) -> None:
    image_of(front, "nas1/tank/one-3", 3)
    oned.disk(0, 0, CLONE=f"YES</CLONE>{attribute}<CLONE>YES")
    front.start()

    stderr = refused(front.run(transfer_call("7.5", "clone")))

    assert said in stderr
    assert front.cloud.requests(m.CloneZvol) == []


def test_without_oned_a_disk_is_left_to_what_its_image_has(front: FrontEnd) -> None:
    image_of(front, "nas1/tank/one-3", 3)
    front.start()

    _, stderr, status = front.run(transfer_call("7.5", "clone"))

    assert status == 0, stderr
    (request,) = front.cloud.requests(m.CloneZvol)
    assert (request.attributes, request.needs) == (Attributes(), ())


def test_a_volatile_disk_asks_for_its_own_attributes_and_then_its_system_datastore_s(
    front: FrontEnd, oned: Oned
) -> None:
    oned.datastore(
        "onedatastore-show-sys_onelun", 103, pools="nas1/tank</ONELUN_POOLS><ONELUN_WIPE>zero</ONELUN_WIPE><X>"
    )
    text = oned.documents["datastore", 103]
    oned.documents["datastore", 103] = text.replace(
        "<X></ONELUN_POOLS>", "<ONELUN_COMPRESSION>lz4</ONELUN_COMPRESSION>"
    )
    oned.disk(0, 2, SIZE="16</SIZE><ONELUN_COMPRESSION>off</ONELUN_COMPRESSION><SIZE>16")
    front.start()

    _, stderr, status = front.run(transfer_call("7.5", "mkimage"))

    assert status == 0, stderr
    (request,) = front.cloud.requests(m.CreateZvol)
    assert request.attributes == Attributes(compression="off", wipe=Wipe.ZERO)
