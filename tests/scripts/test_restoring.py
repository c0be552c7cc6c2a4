"""restore as oned's recording calls it, with real targets and qemu-img, and scripts in the place of OpenNebula's own."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import Placement, Volume
from tests.support.oned import Oned, serving
from tests.support.recorded import Recorded, datastore_call, document, show, transfer_call
from tests.support.requires import requires
from tests.support.tgt import PrivateTgtd, free_port
from tests.support.tgt_cloud import TgtCloud

from onelun.driver.api import Api
from onelun.errors import Busy, Conflict, NoReply
from onelun.model import Kind, Owner
from onelun.rpc import message as m

MIB = 1 << 20
VM = "/var/lib/one/datastores/103/0"
WHERE = "host01:/var/lib/one//datastores/103/0"
NAMES = {0: "one-3-0-0", 1: "one-4"}

LS = """#!/bin/sh
cat >"$0.stdin"
echo "$@" >"$0.argv"
cat "$0.json"
"""
DOWNLOADER = """#!/bin/sh
test "$1" = --nodecomp && test "$3" = - || exit 9
exec cat "${2#rsync://100//0:abc}"
"""


@pytest.fixture(scope="module")
def tgtd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PrivateTgtd, int]]:
    requires("tgtd", "qemu-img")
    port = free_port()
    daemon = PrivateTgtd(tmp_path_factory.mktemp("tgt"), [f"127.0.0.1:{port}"])
    daemon.start()
    try:
        yield daemon, port
    finally:
        daemon.stop()


@pytest.fixture
def remotes(tmp_path: Path) -> Path:
    """OpenNebula's remotes, with a backup datastore's driver that has disks 0 and 1."""
    place = tmp_path / "remotes" / "datastore"
    (place / "rsync").mkdir(parents=True)
    for script, text in ((place / "rsync" / "ls", LS), (place / "downloader.sh", DOWNLOADER)):
        script.write_text(text)
        script.chmod(0o755)
    return place


@pytest.fixture
def oned(tmp_path: Path) -> Iterator[tuple[Oned, str]]:
    with serving(tmp_path) as (server, auth):
        server.vm("vm-0.lcm-12", lcm=0, state=8)
        server.documents["image", 27] = show("oneimage-show-t-os", ID="27", DATASTORE_ID="108")
        server.documents["datastore", 108] = show("onedatastore-show-bk_onelun", DS_MAD="rsync")
        yield server, auth


@pytest.fixture
def front(
    front: FrontEnd, tgtd: tuple[PrivateTgtd, int], remotes: Path, oned: tuple[Oned, str], tmp_path: Path
) -> FrontEnd:
    (tmp_path / "nas").mkdir()
    front.cloud = TgtCloud(tmp_path / "nas", *tgtd)
    front.api = Api(oned[0].url, oned[1])
    front.settings["remotes"] = str(remotes.parent)
    owners = {
        0: Owner(kind=Kind.DISK, cloud=CLOUD, image_id=3, vm_id=0, disk_id=0),
        1: Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=4),
    }
    for disk_id, name in NAMES.items():
        key = ("nas1", "tank", name)
        front.cloud.volumes[key] = Volume(8 * MIB, owners[disk_id], hosts={"node1": f"{VM}/disk.{disk_id}"})
        front.cloud.placements[0, disk_id] = Placement(key, f"{VM}/disk.{disk_id}", "node1")
        file(front, disk_id).write_bytes(b"broken" * 100)
        backup(tmp_path, disk_id)
    listed(remotes, tmp_path, 0, 1)
    return front.start()


def content(disk_id: int) -> bytes:
    return random.Random(disk_id).randbytes(MIB) + bytes(3 * MIB) + b"end" * 512


def backup(directory: Path, disk_id: int) -> Path:
    """A backup's file of the disk."""
    raw, path = directory / f"raw.{disk_id}", directory / f"disk.{disk_id}.0"
    raw.write_bytes(content(disk_id))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    return path


def listed(remotes: Path, directory: Path, *disks: int, **more: str) -> None:
    """What the driver of the backup datastore lists."""
    told = {str(disk): f"rsync://100//0:abc{directory}/disk.{disk}.0" for disk in disks}
    (remotes / "rsync" / "ls.json").write_text(json.dumps(told | more))


def file(front: FrontEnd, disk_id: int) -> Path:
    assert isinstance(front.cloud, TgtCloud)
    return front.cloud.file(f"nas1/tank/{NAMES[disk_id]}")


def restored(front: FrontEnd, disk_id: int) -> bool:
    found = file(front, disk_id).read_bytes()
    return found.rstrip(b"\0") == content(disk_id) and len(found) == 8 * MIB


def untouched(front: FrontEnd, disk_id: int) -> bool:
    return file(front, disk_id).read_bytes().startswith(b"broken")


def call(image: str = "27", increment: str = "-1", disk: str = "-1") -> Recorded:
    return transfer_call("7.5", "restore", WHERE, "0", image, increment, disk)


def refused(front: FrontEnd, request: Recorded) -> str:
    stdout, stderr, status = front.run(request)
    assert (stdout, status) == ("", 1)
    assert not front.cloud.imports
    return stderr.splitlines()[-1]


def test_all_disks_of_a_backup_are_put_back_as_recorded(front: FrontEnd) -> None:
    for _ in range(2):
        stdout, stderr, status = front.run(transfer_call("7.5", "restore"))
        assert (stdout, status) == ("", 0), stderr

    assert restored(front, 0)
    assert restored(front, 1)
    assert not front.cloud.imports
    assert [front.cloud.volumes["nas1", "tank", name].hosts for name in NAMES.values()] == [
        {"node1": f"{VM}/disk.{disk_id}"} for disk_id in NAMES
    ]


def test_the_driver_of_the_backup_datastore_hears_which_increment_of_what(front: FrontEnd, remotes: Path) -> None:
    front.run(call(increment="3", disk="1"))

    told = (remotes / "rsync" / "ls.stdin").read_text()
    assert (remotes / "rsync" / "ls.argv").read_text() == "-i 3\n"
    root = ElementTree.fromstring(told)
    assert root.tag == "DS_DRIVER_ACTION_DATA"
    assert [(child.tag, child.findtext("ID")) for child in root] == [("DATASTORE", "108"), ("VM", "0"), ("IMAGE", "27")]


def test_one_disk_alone(front: FrontEnd) -> None:
    stdout, stderr, status = front.run(call(disk="1"))

    assert (stdout, status) == ("", 0), stderr
    assert restored(front, 1)
    assert untouched(front, 0)
    assert "INFO: 0 restore: restored disk 1, nas1/tank/one-4" in stderr


def test_what_is_no_disk_in_a_backup_is_left_alone(front: FrontEnd, remotes: Path, tmp_path: Path) -> None:
    listed(remotes, tmp_path, 0, tpm="rsync://100//0:abc/disk.tpm.0")

    assert front.run(call())[2] == 0

    assert restored(front, 0)


def test_no_disk_is_replaced_until_all_have_arrived(front: FrontEnd, tmp_path: Path) -> None:
    (tmp_path / "disk.1.0").unlink()

    sentence = refused(front, call())

    assert sentence.startswith(
        "cannot restore the VM's directory on host01: the backup cannot be read from rsync://100//0:abc"
    )
    assert untouched(front, 0)
    assert untouched(front, 1)


@pytest.mark.parametrize("damage", ["empty", "cut", "raw"])
def test_a_file_that_is_no_whole_backup_replaces_nothing(front: FrontEnd, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "disk.1.0"
    if damage == "empty":
        path.write_bytes(b"")
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:400000])
    else:
        path.write_bytes(b"no qcow2" * 1000)

    sentence = refused(front, call())

    assert sentence.startswith("cannot restore the VM's directory on host01: ")
    assert untouched(front, 0)
    assert untouched(front, 1)


def test_a_disk_that_is_open_stays_and_its_host_has_it(front: FrontEnd) -> None:
    front.cloud.fail("nas1", m.FinishImport, *[Busy("one-3-0-0 is open on node1: power its VM off")] * 50)

    assert refused(front, call(disk="0")).endswith("one-3-0-0 is open on node1: power its VM off")

    assert untouched(front, 0)
    assert len(front.cloud.requests(m.MapZvol)) == 1


def test_a_disk_that_another_host_has_is_refused(front: FrontEnd) -> None:
    front.cloud.fail("nas1", m.RestoreZvol, Conflict("volume one-3-0-0 is mapped to node2"))

    assert "mapped to node2" in refused(front, call(disk="0"))


def test_an_end_that_is_not_heard_of_is_an_error_and_a_repeat_succeeds(front: FrontEnd) -> None:
    front.cloud.fail("nas1", m.FinishImport, NoReply("nas1 did not answer"))
    refused(front, call(disk="0"))

    assert front.run(call(disk="0"))[2] == 0
    assert restored(front, 0)


def test_a_restore_that_is_stopped_replaces_nothing(front: FrontEnd, remotes: Path) -> None:
    (remotes / "downloader.sh").write_text("#!/bin/sh\nsleep 60\n")

    with front.begin(call()) as process:
        end = time.monotonic() + 60
        while not (remotes / "rsync" / "ls.argv").exists() and time.monotonic() < end:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 1

    assert untouched(front, 0)
    assert not front.cloud.imports


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ((WHERE, "0", "27", "-1"), "the arguments should be: restore HOST:DIRECTORY VM IMAGE INCREMENT DISK"),
        ((WHERE, "0", "27", "x", "-1"), "the arguments should be: restore"),
        ((WHERE, "0", "-1", "-1", "-1"), "the image of the backup is -1"),
        ((WHERE, "7", "27", "-1", "-1"), "the directory is that of VM 0, and the call is for VM 7"),
        ((f"{WHERE}/disk.0", "0", "27", "-1", "-1"), "is a disk"),
        ((WHERE, "0", "28", "-1", "-1"), "oned has no image 28"),
        ((WHERE, "0", "27", "-1", "9"), "the backup in image 27 has no disk 9 to restore"),
        ((WHERE.replace("host01", "vm"), "0", "27", "-1", "-1"), "vm is the front-end, which connects no disks"),
    ],
)
def test_bad_arguments_are_a_clear_error(front: FrontEnd, argv: tuple[str, ...], reason: str) -> None:
    assert reason in refused(front, transfer_call("7.5", "restore", *argv))
    assert untouched(front, 0)


def test_drivers_that_fail_or_are_not_there_are_named(front: FrontEnd, remotes: Path, oned: tuple[Oned, str]) -> None:
    (remotes / "rsync" / "ls.json").write_text("no list")
    garbled = refused(front, call())
    (remotes / "rsync" / "ls.json").write_text('{"0": "rsync://x/;reboot"}')
    hostile = refused(front, call())
    (remotes / "rsync" / "ls").write_text("#!/bin/sh\necho no route >&2\nexit 3\n")
    failed = refused(front, call())
    oned[0].documents["datastore", 108] = show("onedatastore-show-bk_onelun", DS_MAD="restic")
    absent = refused(front, call())
    oned[0].documents["datastore", 108] = show("onedatastore-show-bk_onelun", DS_MAD="../evil")
    bad = refused(front, call())

    assert "rsync/ls printed no list of disks" in garbled
    assert "which is no URL" in hostile
    assert "rsync/ls failed with status 3: no route" in failed
    assert "restic/ls: the driver restic cannot list backups (frontend.remotes)" in absent
    assert "'../evil', which is no name of one" in bad


def restored_image(path: str, datastore: int | None) -> Recorded:
    """cp of an image as OpenNebula's restore makes it; without a datastore, as any user may ask for it."""
    text = document("cp", PATH=path, SIZE="5")
    if datastore is not None:
        text = text.replace("<DEV_PREFIX>", f"<FROM_BACKUP_DS><![CDATA[{datastore}]]></FROM_BACKUP_DS><DEV_PREFIX>", 1)
    return datastore_call("7.5", "cp", text)


def test_an_image_is_made_from_a_disk_in_a_backup(front: FrontEnd, tmp_path: Path) -> None:
    stdout, stderr, status = front.run(restored_image(f"rsync://100//0:abc{tmp_path}/disk.1.0", 100))

    assert (stdout, status) == ("nas2/tank/one-3 raw\n", 0), stderr
    assert isinstance(front.cloud, TgtCloud)
    assert front.cloud.file("nas2/tank/one-3").read_bytes().rstrip(b"\0") == content(1)


@pytest.mark.parametrize(
    ("datastore", "reason"),
    [
        (None, "rsync:// is taken only of an image that OpenNebula restores (FROM_BACKUP_DS)"),
        (10, "is not in the backups of datastore 10 (FROM_BACKUP_DS)"),
        (101, "is not in the backups of datastore 101 (FROM_BACKUP_DS)"),
    ],
)
def test_a_backup_is_read_only_for_opennebulas_own_restore(
    front: FrontEnd, tmp_path: Path, datastore: int | None, reason: str
) -> None:
    _, stderr, status = front.run(restored_image(f"rsync://100//0:abc{tmp_path}/disk.1.0", datastore))

    assert status == 1
    assert reason in stderr
    assert not front.cloud.requests(m.ImportZvol)


def test_the_size_of_a_disk_in_a_backup_is_not_told_to_whoever_asks_past_the_backups_own_driver(
    front: FrontEnd,
) -> None:
    _, stderr, status = front.run(datastore_call("7.5", "stat", document("stat", PATH="rsync://100//0:abc/disk.1.0")))

    assert status == 1
    assert "rsync:// is no kind of PATH" in stderr


def test_a_path_that_would_be_more_than_a_word_of_a_shell_is_refused(front: FrontEnd) -> None:
    _, stderr, status = front.run(restored_image("rsync://100//0:a'$(reboot)'", 100))

    assert status == 1
    assert "is no URL of a disk in a backup" in stderr
