"""mkimage and mkswap: disks without an image, from the arguments to their end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import GIB, Volume
from tests.support.oned import Oned, serving
from tests.support.recorded import RELEASES, Recorded, transfer_call

from onelun.driver.api import Api
from onelun.errors import NoReply, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc import message as m

MIB = 1 << 20
VM = "/var/lib/one/datastores/103/0"
ONE = "nas1/tank/one-vm-0-2"
SWAP = "nas1/tank/one-vm-0-3"


def on(host: str, disk: int) -> str:
    return f"{host}:{VM.replace('/one/', '/one//')}/disk.{disk}"


@pytest.fixture
def front(front: FrontEnd) -> FrontEnd:
    front.settings["pools"] = ("nas1/tank",)
    return front


@pytest.fixture
def oned(front: FrontEnd, tmp_path: Path) -> Iterator[Oned]:
    with serving(tmp_path) as (server, auth):
        front.settings["pools"] = ()
        front.api = Api(server.url, auth)
        server.vm("vm-0.lcm-12")
        server.datastore("onedatastore-show-sys_onelun", 103, pools="nas1/tank, nas2/tank")
        yield server


def ok(run: tuple[str, str, int]) -> None:
    assert (run[0], run[2]) == ("", 0), run[1]


def refused(run: tuple[str, str, int]) -> str:
    stdout, stderr, status = run
    assert (stdout, status, stderr.count("\n")) == ("", 1, 1)
    return stderr


@pytest.mark.parametrize("release", RELEASES)
def test_volatile_disks_live_their_life_by_arguments_alone(front: FrontEnd, release: str) -> None:
    front.start(release)
    run = lambda name, *argv: ok(front.run(transfer_call(release, name, *argv, "0", "103")))  # noqa: E731

    for _ in range(2):
        run("mkimage", "16", "raw", on("host01", 2))
        run("mkswap", "8", on("host01", 3))
    made = {name: front.cloud.volume(name) for name in front.cloud.names()}
    links = [front.cloud.link("node1", f"{VM}/disk.{disk}") for disk in (2, 3)]
    run("mv", on("host01", 2), on("host02", 2))
    moved = dict(front.cloud.volume(ONE).hosts)
    run("delete", on("host02", 2))
    run("delete", on("host01", 3))

    assert {name: (v.size, v.filesystem) for name, v in made.items()} == {
        ONE: (16 * MIB, None),
        SWAP: (8 * MIB, "swap"),
    }
    assert made[ONE].owner == Owner(kind=Kind.VOLATILE, cloud=CLOUD, vm_id=0, disk_id=2)
    assert links == [f"/dev/onelun/{ONE}", f"/dev/onelun/{SWAP}"]
    assert moved == {"node2": f"{VM}/disk.2"}
    assert front.cloud.names() == []


def test_the_recorded_calls_ask_oned_for_the_system_datastore_s_pools(front: FrontEnd, oned: Oned) -> None:
    front.cloud.volumes["nas1", "tank", "one-1"] = Volume(GIB, Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1))
    front.start()

    ok(front.run(transfer_call("7.5", "mkimage")))
    ok(front.run(transfer_call("7.5", "mkswap")))

    assert front.cloud.names() == ["nas1/tank/one-1", "nas2/tank/one-vm-0-2", "nas2/tank/one-vm-0-3"]
    assert ("one.datastore.info", 103) in oned.calls


@pytest.mark.parametrize(("fs", "made"), [("ext4", "ext4"), ("XFS", "xfs"), ("", None), ("raw", None)])
def test_a_disk_is_formatted_with_the_fs_of_its_vm(front: FrontEnd, oned: Oned, fs: str, made: str | None) -> None:
    oned.disk(0, 2, SIZE=f"16</SIZE><FS>{fs}</FS><SIZE>16")
    front.start()

    ok(front.run(transfer_call("7.5", "mkimage")))

    assert front.cloud.volume(ONE).filesystem == made


def test_3_4_says_the_filesystem_in_place_of_a_format(front: FrontEnd) -> None:
    front.start("3.4")

    ok(front.run(Recorded("tm/mkimage", ("16", "ext3", on("host01", 2)), b"")))

    assert front.cloud.volume(ONE).filesystem == "ext3"


def test_3_4_moves_and_deletes_volatile_disks_with_their_directory(front: FrontEnd) -> None:
    front.start("3.4")
    ok(front.run(Recorded("tm/mkimage", ("16", "ext3", on("host01", 2)), b"")))
    ok(front.run(Recorded("tm/mkswap", ("8", on("host01", 3)), b"")))

    for _ in range(2):
        ok(front.run(Recorded("tm/mv", (f"host01:{VM}", f"host02:{VM}"), b"")))
    hosts = [list(front.cloud.volume(name).hosts) for name in (ONE, SWAP)]
    links = [front.cloud.link("node2", f"{VM}/disk.{disk}") for disk in (2, 3)]
    for _ in range(2):
        ok(front.run(Recorded("tm/delete", (f"host02:{VM}",), b"")))

    assert hosts == [["node2"], ["node2"]]
    assert links == [f"/dev/onelun/{ONE}", f"/dev/onelun/{SWAP}"]
    assert front.cloud.names() == []
    assert VM not in front.cloud.directories["node2"]


def test_a_retry_stays_in_the_pool_where_the_disk_is(front: FrontEnd) -> None:
    front.settings["pools"] = ("nas1/tank", "nas2/tank")
    front.start("7.5")
    ok(front.run(transfer_call("7.5", "mkimage")))
    front.cloud.volumes["nas1", "tank", "one-1"] = Volume(GIB, Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=1))

    ok(front.run(transfer_call("7.5", "mkimage")))

    assert [name for name in front.cloud.names() if "one-vm" in name] == [ONE]


def test_a_pool_that_is_away_is_passed_over(front: FrontEnd) -> None:
    front.settings["pools"] = ("nas1/tank", "nas2/tank")
    front.start("7.5")
    front.cloud.dead.add("nas1")

    ok(front.run(transfer_call("7.5", "mkimage")))

    assert front.cloud.names() == ["nas2/tank/one-vm-0-2"]


def test_a_disk_that_was_made_on_two_nases_is_deleted_from_both(front: FrontEnd) -> None:
    front.settings["pools"] = ("nas1/tank", "nas2/tank")
    front.start("7.5")
    front.cloud.dead.add("nas1")
    ok(front.run(transfer_call("7.5", "mkimage")))
    front.cloud.dead.clear()
    owner = Owner(kind=Kind.VOLATILE, cloud=CLOUD, vm_id=0, disk_id=2)
    front.cloud.volumes["nas1", "tank", "one-vm-0-2"] = Volume(MIB, owner)

    ok(front.run(transfer_call("7.5", "delete", on("host01", 2), "0", "103")))

    assert front.cloud.names() == []


def test_a_disk_that_cannot_be_attached_leaves_nothing(front: FrontEnd) -> None:
    front.start("6.10")
    front.cloud.dead.add("node1")

    assert refused(front.run(transfer_call("6.10", "mkimage"))) == "cannot make a disk: nobody serves node1\n"
    assert front.cloud.names() == []


def test_a_disk_whose_attachment_is_unknown_stays(front: FrontEnd) -> None:
    front.start("6.10")
    front.cloud.fail("nas1", m.MapZvol, NoReply("nas1 took it and did not answer"))

    refused(front.run(transfer_call("6.10", "mkswap")))

    assert front.cloud.names() == [SWAP]


@pytest.mark.parametrize(
    ("name", "argv", "reason"),
    [
        ("mkimage", ("0", "raw", on("host01", 2)), "the size is 0 MB"),
        ("mkimage", ("x", "raw", on("host01", 2)), "the size is 'x', which is no number of MB"),
        ("mkimage", ("16", "qcow2", on("host01", 2)), "FORMAT is 'qcow2', which is none of raw, ext2"),
        ("mkimage", ("16", "ext4 -O x", on("host01", 2)), "FORMAT is 'ext4 -O x', which is none of"),
        ("mkimage", ("16", on("host01", 2)), "the arguments should be: mkimage SIZE_MB FORMAT HOST:DIR/disk.N"),
        ("mkimage", ("16", "raw", f"host01:{VM}"), "is a directory, where a disk.N was expected"),
        ("mkimage", ("16", "raw", on("vm", 2)), "vm is the front-end, which connects no disks"),
        ("mkimage", ("16", "raw", on("host09", 2)), "nobody serves the host 'host09'"),
        ("mkimage", ("16", "raw", "host01:/var/lib/one/datastores/103/7/disk.2"), "the call is for VM 0"),
        ("mkimage", (str(200 * 1024), "raw", on("host01", 2)), "200.0 GiB are needed"),
        ("mkswap", (on("host01", 3),), "the arguments should be: mkswap SIZE_MB HOST:DIR/disk.N"),
        ("mkswap", ("-8", on("host01", 3)), "the size is '-8', which is no number of MB"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_makes_nothing(
    front: FrontEnd, name: str, argv: tuple[str, ...], reason: str
) -> None:
    front.start("6.10")

    assert reason in refused(front.run(transfer_call("6.10", name, *argv, "0", "103")))

    assert front.cloud.names() == []


def test_an_fs_that_is_none_is_told_with_its_disk(front: FrontEnd, oned: Oned) -> None:
    oned.disk(0, 2, SIZE="16</SIZE><FS>zfs</FS><SIZE>16")
    front.start("6.10")

    assert "FS of disk 2 is 'zfs', which is none of" in refused(front.run(transfer_call("6.10", "mkimage")))


def test_a_system_datastore_without_pools_says_what_to_set(front: FrontEnd, oned: Oned) -> None:
    oned.datastore("onedatastore-show-sys_onelun", 103)
    front.start("6.10")

    assert refused(front.run(transfer_call("6.10", "mkswap"))) == (
        "cannot make a disk to swap on: system datastore 103 does not say where volatile disks and checkpoints live:"
        ' set ONELUN_POOLS="NAS/POOL …" in it (onedatastore update), or frontend.pools\n'
    )


def test_of_pools_that_are_all_away_it_is_told(front: FrontEnd) -> None:
    front.settings["pools"] = ("nas1/tank", "nas2/tank")
    front.start("6.10")
    for nas in ("nas1", "nas2"):
        front.cloud.fail(nas, m.PoolCapacity, Unreachable(f"no agent called {nas} is connected to the broker"))

    assert "no agent called nas1 is connected" in refused(front.run(transfer_call("6.10", "mkswap")))
