"""The actions on images that copy nothing through the front-end, and every document that is not one."""

from __future__ import annotations

import base64

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import GIB, Volume
from tests.support.recorded import RELEASES, Recorded, datastore_call, document, error, number

from onelun.errors import NoReply, NotFound, OnelunError, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc import message as m

MIB = 1 << 20
SINCE_5 = tuple(release for release in RELEASES if release != "3.4")


def failed(run: tuple[str, str, int], release: str = "6.10") -> str:
    stdout, stderr, status = run
    assert (stdout, status) == ("", 1)
    if number(release) > (6, 0):
        assert stderr.count("\n") == 1
    return stderr


def owner(image_id: int, regtime: int) -> Owner:
    return Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=image_id, regtime=regtime)


@pytest.mark.parametrize("release", RELEASES)
def test_mkfs_makes_an_empty_image(front: FrontEnd, release: str) -> None:
    front.start(release)

    stdout, _, status = front.run(datastore_call(release, "mkfs"))

    assert (stdout, status) == ("nas1/tank/one-9 100\n" if number(release) <= (5, 12) else "nas1/tank/one-9\n", 0)
    made = front.cloud.volume("nas1/tank/one-9")
    assert (made.size, made.owner) == (100 * MIB, owner(9, 1795245252))


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("told", "made"),
    [("ext4", "ext4"), ("EXT3", "ext3"), ("xfs", "xfs"), ("fat32", "vfat"), ("ntfs", "ntfs"), ("swap", "swap")],
)
def test_mkfs_formats_an_image_as_it_is_asked(front: FrontEnd, release: str, told: str, made: str) -> None:
    front.start(release)

    _, stderr, status = front.run(datastore_call(release, "mkfs", FS=told))

    assert status == 0, stderr
    assert front.cloud.volume("nas1/tank/one-9").filesystem == made
    assert front.cloud.requests(m.CreateZvol)[0].needs == ("filesystem",)


@pytest.mark.parametrize("release", [release for release in RELEASES if number(release) >= (6, 0)])
def test_an_image_for_disk_saveas_has_save_as_for_its_format(front: FrontEnd, release: str) -> None:
    """As a real oned 7.0.2 sent it: the image is made empty, and cpds fills it."""
    front.start(release)

    stdout, stderr, status = front.run(datastore_call(release, "mkfs", FORMAT="<![CDATA[save_as]]>"))

    assert (stdout, status) == ("nas1/tank/one-9\n", 0), stderr
    assert front.cloud.volume("nas1/tank/one-9").size == 100 * MIB


def test_3_4_says_save_as_and_raw_of_what_stays_empty(front: FrontEnd) -> None:
    front.start("3.4")

    runs = [front.run(datastore_call("3.4", "mkfs", FS=word)) for word in ("save_as", "raw")]

    assert [status for _, _, status in runs] == [0, 0]
    assert front.cloud.volume("nas1/tank/one-9").filesystem is None


def test_3_4_names_its_own_element(front: FrontEnd) -> None:
    front.start("3.4")

    assert "IMAGE/FSTYPE is 'qcow2', which is none of" in failed(
        front.run(datastore_call("3.4", "mkfs", FS="qcow2")), "3.4"
    )


@pytest.mark.parametrize("release", SINCE_5)
def test_clone_copies_an_image(front: FrontEnd, release: str) -> None:
    front.cloud.volumes["nas1", "tank", "one-3"] = Volume(64 * MIB - 512, owner(3, 1))
    front.start(release)

    stdout, _, status = front.run(datastore_call(release, "clone"))

    assert (stdout, status) == (f"nas1/tank/one-13 {'64' if release == '5.12' else 'raw'}\n", 0)
    made = front.cloud.volume("nas1/tank/one-13")
    assert (made.size, made.owner) == (64 * MIB - 512, owner(13, 1795245258))


@pytest.mark.parametrize("release", RELEASES)
def test_rm_removes_an_image_and_may_be_repeated(front: FrontEnd, release: str) -> None:
    front.cloud.volumes["nas1", "tank", "one-13"] = Volume(MIB, owner(13, 1795245258))
    front.start(release)

    runs = [front.run(datastore_call(release, "rm")) for _ in range(2)]

    assert [(stdout, status) for stdout, _, status in runs] == [("", 0), ("", 0)]
    assert front.cloud.names() == []


@pytest.mark.parametrize("release", RELEASES)
def test_rm_of_a_later_image_of_the_same_id_is_refused(front: FrontEnd, release: str) -> None:
    front.cloud.volumes["nas1", "tank", "one-13"] = Volume(MIB, owner(13, 2))
    front.start(release)

    run = front.run(datastore_call(release, "rm"))

    assert run == ("", error(release, "cannot remove image 13: one-13 belongs to somebody else"), 1)
    assert front.cloud.names() == ["nas1/tank/one-13"]


def test_rm_of_an_image_whose_pool_is_not_there_fails(front: FrontEnd) -> None:
    front.cloud.free["nas1", "other"] = front.cloud.free.pop(("nas1", "tank"))
    front.start("7.5")

    run = front.run(datastore_call("7.5", "rm"))

    assert run == ("", error("7.5", "cannot remove image 13: nas1 has no pool tank"), 1)


@pytest.mark.parametrize("release", RELEASES)
def test_monitor_sums_the_pools(front: FrontEnd, release: str) -> None:
    front.cloud.volumes["nas1", "tank", "one-13"] = Volume(10 * GIB, owner(13, 2))
    front.start(release)

    run = front.run(datastore_call(release, "monitor"))

    assert run == ("USED_MB=10240\nTOTAL_MB=204800\nFREE_MB=194560\n", "", 0)


def test_monitor_of_half_the_pools_is_an_error(front: FrontEnd) -> None:
    front.cloud.dead.add("nas2")
    front.start("6.10")

    assert failed(front.run(datastore_call("6.10", "monitor"))) == "cannot monitor datastore 102: nobody serves nas2\n"


def test_a_pool_in_maintenance_has_no_room_and_takes_no_image(front: FrontEnd) -> None:
    front.cloud.maintenance["nas1", "tank"] = "pool tank is in maintenance: nothing new is placed there"
    front.start("6.10")

    assert front.run(datastore_call("6.10", "monitor"))[0] == "USED_MB=0\nTOTAL_MB=204800\nFREE_MB=102400\n"
    stdout, _, status = front.run(datastore_call("6.10", "mkfs"))

    assert (stdout.split("/")[0], status) == ("nas2", 0)


def test_where_all_pools_are_in_maintenance_a_sentence_says_so(front: FrontEnd) -> None:
    for nas in ("nas1", "nas2"):
        front.cloud.maintenance[nas, "tank"] = "pool tank is in maintenance (new disks): nothing new is placed there"
    front.start("6.10")

    told = failed(front.run(datastore_call("6.10", "mkfs")))

    assert "on nas1, pool tank is in maintenance (new disks): nothing new is placed there; on nas2, pool tank" in told
    assert front.cloud.names() == []


@pytest.mark.parametrize(("taken", "chosen"), [({"nas1": 1}, "nas2"), ({"nas2": 1}, "nas1"), ({}, "nas1")])
def test_an_image_goes_to_the_pool_with_the_most_room_or_else_to_the_first(
    front: FrontEnd, taken: dict[str, int], chosen: str
) -> None:
    for nas, gib in taken.items():
        front.cloud.volumes[nas, "tank", "one-1"] = Volume(gib * GIB, owner(1, 1))
    front.start("6.10")

    assert front.run(datastore_call("6.10", "mkfs")) == (f"{chosen}/tank/one-9\n", "", 0)


@pytest.mark.parametrize(
    "away", [Unreachable("nobody serves nas1"), NoReply("nas1 is silent"), NotFound("no such pool")]
)
def test_an_image_goes_to_a_pool_that_answers(front: FrontEnd, away: OnelunError) -> None:
    front.cloud.volumes["nas2", "tank", "one-1"] = Volume(GIB, owner(1, 1))
    front.cloud.fail("nas1", m.PoolCapacity, away)
    front.start("6.10")

    assert front.run(datastore_call("6.10", "mkfs")) == ("nas2/tank/one-9\n", "", 0)


def test_of_pools_that_do_not_answer_and_pools_without_room_those_that_do_not_answer_are_told(front: FrontEnd) -> None:
    front.cloud.dead.add("nas1")
    front.start("6.10")

    stderr = failed(front.run(datastore_call("6.10", "mkfs", SIZE=str(200 * 1024))))

    assert stderr == "cannot make image 9: nobody serves nas1\n"


def test_pools_without_room_are_named(front: FrontEnd) -> None:
    front.start("6.10")

    stderr = failed(front.run(datastore_call("6.10", "mkfs", SIZE=str(200 * 1024))))

    assert stderr == (
        "cannot make image 9: 200.0 GiB are needed: nas1/tank has 100.0 GiB free, nas2/tank has 100.0 GiB free\n"
    )


def test_a_mkfs_whose_outcome_is_unknown_is_cleaned_up(front: FrontEnd) -> None:
    front.cloud.fail("nas1", m.CreateZvol, NoReply("nas1 took it and did not answer"))
    front.start("6.10")

    assert "did not answer" in failed(front.run(datastore_call("6.10", "mkfs")))
    assert [request.zvol for request in front.cloud.requests(m.DelZvol)] == ["one-9"]


def test_a_mkfs_that_nobody_took_asks_nothing_more(front: FrontEnd) -> None:
    front.cloud.fail("nas1", m.CreateZvol, Unreachable("nobody serves nas1"))
    front.start("6.10")

    assert "nobody serves nas1" in failed(front.run(datastore_call("6.10", "mkfs")))
    assert front.cloud.requests(m.DelZvol) == []


def test_an_image_of_another_life_is_not_touched(front: FrontEnd) -> None:
    front.cloud.volumes["nas1", "tank", "one-9"] = Volume(MIB, owner(9, 1))
    front.cloud.volumes["nas2", "tank", "one-1"] = Volume(GIB, owner(1, 1))
    front.start("6.10")

    assert "one-9 exists in pool tank already" in failed(front.run(datastore_call("6.10", "mkfs")))
    assert front.cloud.volume("nas1/tank/one-9").size == MIB


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"SIZE": "0"}, "IMAGE/SIZE is 0 MB"),
        ({"SIZE": "-5"}, "IMAGE/SIZE is -5 MB"),
        ({"SIZE": "99999999999"}, "IMAGE/SIZE is 99999999999 MB"),
        ({"SIZE": "1e3"}, "IMAGE/SIZE of OpenNebula's document is '1e3', which is no number"),
        ({"SIZE": ""}, "OpenNebula's document has no IMAGE/SIZE, or an empty one"),
        ({"ID": "seven"}, "IMAGE/ID of OpenNebula's document is 'seven', which is no number"),
        ({"ID": ""}, "OpenNebula's document has no IMAGE/ID, or an empty one"),
        (
            {"FS": "reiserfs"},
            "IMAGE/FS is 'reiserfs', which is none of raw, ext2, ext3, ext4, xfs, btrfs, vfat, ntfs, swap",
        ),
        ({"FS": "ext4; reboot"}, "IMAGE/FS is 'ext4; reboot', which is none of"),
        ({"FS": "-E root_owner"}, "IMAGE/FS is '-E root_owner', which is none of"),
        ({"FORMAT": "qcow2"}, "IMAGE/FORMAT is 'qcow2', and a volume of onelun is always raw"),
        ({"ONELUN_POOLS": ""}, 'datastore img_onelun does not say where it lives: set ONELUN_POOLS="NAS/POOL'),
        ({"ONELUN_POOLS": "tank"}, "ONELUN_POOLS of datastore img_onelun has 'tank': it should be NAS/POOL"),
        ({"ONELUN_POOLS": "nas1/.."}, "'..' is no name of a pool"),
        ({"ONELUN_POOLS": "nas1/" + "a" * 300}, "is no name of a pool"),
    ],
)
def test_a_document_that_cannot_be_is_a_clear_error(front: FrontEnd, elements: dict[str, str], reason: str) -> None:
    front.start("6.10")

    stderr = failed(front.run(datastore_call("6.10", "mkfs", **elements)))

    assert stderr.startswith("cannot make image 9: ")
    assert reason in stderr
    assert front.cloud.asked == []


def laughing() -> str:
    entities = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
    return f'<!DOCTYPE x [<!ENTITY l0 "ha">{entities}]><DS_DRIVER_ACTION_DATA>&l8;</DS_DRIVER_ACTION_DATA>'


@pytest.mark.parametrize("release", ["6.6", "6.10"])
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the action's document is missing"),
        (b"%%%", "the action's document is not base64"),
        (document("mkfs").encode(), "the action's document is XML as it is"),
        (base64.b64encode(b"not XML"), "OpenNebula's document is not XML"),
        (base64.b64encode(b"\xff\xfe\x00"), "OpenNebula's document is not XML"),
        (base64.b64encode(document("mkfs").encode()[:-30]), "OpenNebula's document is not XML"),
        (base64.b64encode(b"<VM/>"), "OpenNebula's document is 'VM', not DS_DRIVER_ACTION_DATA"),
        (base64.b64encode(b"<DS_DRIVER_ACTION_DATA/>"), "OpenNebula's document has no IMAGE"),
        (base64.b64encode(laughing().encode()), "OpenNebula's document has a DOCTYPE"),
        (
            base64.b64encode(b'<!DOCTYPE x SYSTEM "file:///etc/passwd"><DS_DRIVER_ACTION_DATA/>'),
            "OpenNebula's document has a DOCTYPE",
        ),
    ],
)
def test_what_is_no_document_is_a_clear_error(front: FrontEnd, release: str, body: bytes, reason: str) -> None:
    front.start(release)
    in_argv = Recorded("datastore/mkfs", (body.decode(), "9"), b"")
    on_stdin = Recorded("datastore/mkfs", ("9",), body)

    stderr = failed(front.run(in_argv if release == "6.6" else on_stdin))

    assert reason in stderr
    assert front.cloud.asked == []


def test_no_secret_of_a_document_is_told(front: FrontEnd, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    front.start("7.5")

    runs = [
        front.run(datastore_call(release, "mkfs", SIZE=size)) for release in ("6.6", "7.5") for size in ("0", "100")
    ]

    assert [status for _, _, status in runs] == [1, 0, 1, 0]
    told = caplog.text + "".join(stdout + stderr for stdout, stderr, _ in runs)
    assert "s3cr3t" not in told
    assert base64.b64encode(b"<DS_DRIVER_ACTION_DATA>")[:20].decode() not in told


def test_a_source_of_another_driver_is_refused(front: FrontEnd) -> None:
    front.start("6.10")

    stderr = failed(front.run(datastore_call("6.10", "rm", SOURCE="onelun/one-13")))

    assert "'onelun/one-13' is no SOURCE of onelun: it should be NAS/POOL/VOLUME" in stderr


@pytest.mark.parametrize("argv", [(), ("a", "b", "c")])
def test_a_wrong_number_of_arguments_is_a_clear_error(front: FrontEnd, argv: tuple[str, ...]) -> None:
    front.start("6.10")

    assert "takes ID with its document on stdin" in failed(front.run(Recorded("datastore/mkfs", argv, b"")))
