"""prebackup and postbackup as oned's recordings call them, with what the storage and the host then have."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import Placement, Volume
from tests.support.recorded import Recorded, backup_call, transfer_call

from onelun.errors import Busy, Conflict, NoReply, OutOfSpace, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc import message as m

MIB = 1 << 20
VM = "/var/lib/one/datastores/103/0"
HERE = f"{VM}/backup"
WHERE = "host01:/var/lib/one//datastores/103/0"
GUEST = "one-vm-194"
# What the recordings' VM 0 has: disks 0 and 5 are clones, 1 is persistent.
NAMES = {0: "one-3-0-0", 1: "one-4", 5: "one-3-0-5"}
CONFIG = {"MODE": "INCREMENT"}


@pytest.fixture
def vm(front: FrontEnd) -> FrontEnd:
    """VM 0 with its three disks on host01."""
    owners = {
        0: Owner(kind=Kind.DISK, cloud=CLOUD, image_id=3, vm_id=0, disk_id=0),
        1: Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=4),
        5: Owner(kind=Kind.DISK, cloud=CLOUD, image_id=3, vm_id=0, disk_id=5),
    }
    for disk_id, name in NAMES.items():
        volume = Volume(
            64 * MIB, owners[disk_id], hosts={"node1": f"{VM}/disk.{disk_id}"}, content=f"content {disk_id}"
        )
        front.cloud.volumes["nas1", "tank", name] = volume
        front.cloud.placements[0, disk_id] = Placement(("nas1", "tank", name), f"{VM}/disk.{disk_id}", "node1")
    front.settings["remotes"] = str(front.directory / "remotes")
    return front.start()


def volume(front: FrontEnd, disk_id: int) -> Volume:
    return front.cloud.volumes["nas1", "tank", NAMES[disk_id]]


def done(front: FrontEnd, call: Recorded) -> str:
    stdout, stderr, status = front.run(call)
    assert (stdout, status) == ("", 0), stderr
    return stderr


def refused(front: FrontEnd, call: Recorded) -> str:
    stdout, stderr, status = front.run(call)
    assert (stdout, status) == ("", 1)
    return stderr.splitlines()[-1]


def increment(last: int, name: str = "prebackup_live", **more: str) -> Recorded:
    return backup_call(name, **CONFIG, LAST_INCREMENT_ID=str(last), **more)


def files(front: FrontEnd, host: str = "node1") -> dict[str, str]:
    return {path: content for (there, path), content in front.cloud.files.items() if there == host}


def snapshots(front: FrontEnd) -> set[frozenset[str]]:
    return {frozenset(volume(front, disk_id).snapshots) for disk_id in NAMES}


def nothing_offered(front: FrontEnd) -> bool:
    return not front.cloud.read


@pytest.mark.parametrize("name", ["prebackup", "prebackup_live"])
def test_a_full_backup_writes_each_disk_once_and_keeps_no_snapshot(vm: FrontEnd, name: str) -> None:
    for _ in range(2):
        done(vm, backup_call(name))

    assert files(vm) == {f"{HERE}/disk.{disk_id}.0": f"content {disk_id}" for disk_id in NAMES}
    assert snapshots(vm) == {frozenset()}
    assert nothing_offered(vm)
    assert all(request.extents is None for request in vm.cloud.requests(m.WriteBackup))


def test_the_vm_s_document_stands_beside_them_in_base64(vm: FrontEnd) -> None:
    call = backup_call("prebackup")

    done(vm, call)

    entry = vm.cloud.directories["node1"][VM]["backup/vm.xml"]
    text = vm.cloud.contents["node1", VM, "backup/vm.xml"]
    assert entry.kind == "file"
    assert base64.b64decode(text) == call.stdin


@pytest.mark.parametrize("name", ["postbackup", "postbackup_live"])
def test_postbackup_removes_the_files_and_no_other(vm: FrontEnd, name: str) -> None:
    done(vm, backup_call("prebackup"))
    vm.cloud.files["node1", f"{VM}/checkpoint"] = "kept"

    for _ in range(2):
        done(vm, backup_call(name))

    assert files(vm) == {f"{VM}/checkpoint": "kept"}
    assert "backup/vm.xml" not in vm.cloud.directories["node1"][VM]


def test_an_increment_has_what_changed_since_the_one_before(vm: FrontEnd) -> None:
    done(vm, increment(-1))
    done(vm, increment(-1, "postbackup_live"))
    first = snapshots(vm)
    done(vm, increment(0))

    asked = vm.cloud.requests(m.ListChanges)
    assert first == {frozenset({"backup-0-0"})}
    assert {(request.since, request.until) for request in asked} == {("backup-0-0", "backup-0-1")}
    assert set(files(vm)) == {f"{HERE}/disk.{disk_id}.1" for disk_id in NAMES}
    assert vm.cloud.requests(m.WriteBackup)[-1].extents == tuple(vm.cloud.changes)


def test_a_snapshot_stays_until_a_later_increment_has_arrived(vm: FrontEnd) -> None:
    done(vm, increment(-1))
    done(vm, increment(0))
    after_one = snapshots(vm)
    done(vm, increment(0))
    repeated = snapshots(vm)
    done(vm, increment(1))

    assert after_one == repeated == {frozenset({"backup-0-0", "backup-0-1"})}
    assert snapshots(vm) == {frozenset({"backup-0-1", "backup-0-2"})}


def test_a_repeat_is_made_from_a_snapshot_of_its_own(vm: FrontEnd) -> None:
    done(vm, increment(-1))
    volume(vm, 0).content = "later"

    done(vm, increment(-1))

    assert files(vm)[f"{HERE}/disk.0.0"] == "later"
    assert volume(vm, 0).snapshots == {"backup-0-0": "later"}


def test_a_reset_begins_a_new_chain_and_ends_the_old_one(vm: FrontEnd) -> None:
    for last in (-1, 0, 1):
        done(vm, increment(last))

    done(vm, increment(-1))

    assert snapshots(vm) == {frozenset({"backup-0-0"})}
    assert vm.cloud.requests(m.WriteBackup)[-1].extents is None


def test_a_missing_base_says_that_the_backup_is_to_be_reset_and_changes_nothing(vm: FrontEnd) -> None:
    done(vm, increment(-1))
    volume(vm, 1).snapshots.clear()
    vm.cloud.asked.clear()

    sentence = refused(vm, increment(0))

    assert "nas1/tank/one-4 has no snapshot backup-0-0, which increment 1 would build on" in sentence
    assert sentence.endswith("take a full backup: onevm backup --reset")
    assert vm.cloud.requests(m.SnapshotZvol) == []


def test_a_storage_that_cannot_tell_what_changed_says_so_and_leaves_nothing(vm: FrontEnd) -> None:
    done(vm, increment(-1))
    vm.cloud.fail("nas1", m.ListChanges, Conflict("one-4 was put back to what was before backup-0-0"))

    sentence = refused(vm, increment(0))

    assert sentence.endswith("was put back to what was before backup-0-0; take a full backup: onevm backup --reset")
    assert snapshots(vm) == {frozenset({"backup-0-0"})}
    assert files(vm) == {}


def test_a_full_backup_beside_a_chain_of_before_drops_that(vm: FrontEnd) -> None:
    done(vm, increment(-1))

    done(vm, backup_call("prebackup"))

    assert snapshots(vm) == {frozenset()}


def test_snapshots_of_opennebula_s_and_of_another_vm_s_backups_stay(vm: FrontEnd) -> None:
    volume(vm, 1).snapshots.update({"snap-0": "x", "backup-7-0": "y"})

    done(vm, backup_call("prebackup"))

    assert set(volume(vm, 1).snapshots) == {"snap-0", "backup-7-0"}


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("AGENT", "the guest's filesystems were frozen: the backup is consistent"),
        ("SUSPEND", "the guest was paused: the backup is of one moment of all its disks, as after a power cut"),
    ],
)
def test_a_guest_stands_still_once_for_all_disks_where_that_is_asked_for(vm: FrontEnd, mode: str, said: str) -> None:
    vm.cloud.frozen[GUEST] = None

    stderr = done(vm, backup_call("prebackup_live", FS_FREEZE=mode))

    kinds = [type(request) for _, request, _ in vm.cloud.asked]
    between = kinds[kinds.index(m.FreezeGuest) + 1 : kinds.index(m.ThawGuest)]
    assert between == [m.SnapshotZvol] * 3
    assert [one.pause for one in vm.cloud.requests(m.FreezeGuest)] == [mode == "SUSPEND"]
    assert said in stderr


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("NONE", "FS_FREEZE is NONE, not AGENT or SUSPEND"),
        ("SUSPEND", "since the guest was not paused: there is no virsh on its host"),
        ("AGENT", "since the guest was not frozen: there is no virsh on its host"),
    ],
)
def test_a_guest_that_is_not_frozen_is_backed_up_and_the_log_says_so(vm: FrontEnd, mode: str, reason: str) -> None:
    stderr = done(vm, backup_call("prebackup_live", FS_FREEZE=mode))

    assert "crash-consistent" in stderr
    assert reason in stderr
    assert len(files(vm)) == 3


def test_no_guest_is_asked_when_the_vm_is_off(vm: FrontEnd) -> None:
    done(vm, backup_call("prebackup", FS_FREEZE="AGENT"))

    assert vm.cloud.requests(m.FreezeGuest) == []


def test_the_files_are_where_the_backup_datastore_takes_them_from(vm: FrontEnd) -> None:
    conf = vm.directory / "remotes" / "etc" / "datastore" / "datastore.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text('# BACKUP_BASE_PATH="/no"\nexport BACKUP_BASE_PATH="/srv/backups/"\n')
    vm.cloud.frozen[GUEST] = None
    call = backup_call("prebackup_live", FS_FREEZE="AGENT", LAST_BRIDGE="host02")

    done(vm, call)
    written = files(vm, "node2")
    done(vm, backup_call("postbackup_live", LAST_BRIDGE="host02"))

    assert set(written) == {f"/srv/backups/0/backup/disk.{disk_id}.0" for disk_id in NAMES}
    assert files(vm) == files(vm, "node2") == {}
    assert [node for node, request, _ in vm.cloud.asked if isinstance(request, m.FreezeGuest)] == ["node1"]
    initiators = {request.initiator for request in vm.cloud.requests(m.ReadZvol)}
    assert initiators == {"iqn.2026-11.io.onelun.host:node2"}


@pytest.mark.parametrize(
    "trouble",
    [
        ("node1", m.WriteBackup, OutOfSpace("backup/disk.0.0 needs up to 9 MiB")),
        ("nas1", m.SnapshotZvol, OutOfSpace("pool tank is full")),
        ("nas1", m.ReadZvol, NoReply("nas1 did not answer")),
        ("node1", m.PutEntry, Unreachable("nobody serves node1")),
    ],
)
def test_a_backup_that_fails_leaves_no_files_and_no_snapshots_and_its_repeat_works(
    vm: FrontEnd, trouble: tuple[str, type[m.Request], Exception]
) -> None:
    done(vm, increment(-1))
    vm.cloud.fail(*trouble)  # type: ignore[arg-type]

    sentence = refused(vm, increment(0))
    left = files(vm), snapshots(vm), dict(vm.cloud.read)
    done(vm, increment(0))

    assert sentence.startswith("cannot back up the VM's directory on host01: ")
    assert sentence.endswith(str(trouble[2]))
    assert left == ({}, {frozenset({"backup-0-0"})}, {})
    assert len(files(vm)) == 3


def test_postbackup_of_a_backup_that_failed_drops_its_snapshots(vm: FrontEnd) -> None:
    done(vm, increment(-1))
    done(vm, increment(0))
    call = increment(0, "postbackup_live")
    failed = call._replace(stdin=call.stdin.replace(b"</VM>", b"<BACKUP_RESULT>FAILURE</BACKUP_RESULT></VM>"))

    done(vm, failed)

    assert snapshots(vm) == {frozenset({"backup-0-0"})}


def test_postbackup_clears_the_storage_although_the_host_is_away(vm: FrontEnd) -> None:
    volume(vm, 0).snapshots["backup-0-full"] = "left"
    vm.cloud.dead.add("node1")

    sentence = refused(vm, backup_call("postbackup"))

    assert sentence == "cannot clean up after the backup of the VM's directory on host01: nobody serves node1"
    assert volume(vm, 0).snapshots == {}


def test_two_backups_of_one_vm_at_once_never_make_one_of_both(vm: FrontEnd) -> None:
    original = vm.cloud.write_backup

    def meanwhile(host: str, request: m.WriteBackup) -> m.Reply:
        vm.cloud.write_backup = original  # type: ignore[method-assign]
        volume(vm, 0).made["backup-0-0"] = 5.0
        return original(host, request)

    vm.cloud.write_backup = meanwhile  # type: ignore[method-assign]

    assert "another backup of VM 0 took backup-0-0 of nas1/tank/one-3-0-0 meanwhile" in refused(vm, increment(-1))


def test_a_disk_that_is_busy_for_a_moment_is_waited_for(vm: FrontEnd) -> None:
    done(vm, increment(-1))
    vm.cloud.fail("nas1", m.ListChanges, Busy("the storage moves its blocks"))

    done(vm, increment(0))

    assert len(files(vm)) == 3


@pytest.mark.parametrize("ends", ["mvds", "delete"])
def test_an_image_that_the_vm_gives_back_keeps_no_snapshot_of_its_backups(vm: FrontEnd, ends: str) -> None:
    volume(vm, 1).snapshots.update({"snap-0": "x", "backup-0-3": "y", "backup-7-0": "z"})
    argv = ("nas1/tank/one-4",) if ends == "mvds" else ()

    done(vm, transfer_call("7.5", ends, f"{WHERE}/disk.1", *argv, "0", "102"))

    assert set(volume(vm, 1).snapshots) == {"snap-0", "backup-7-0"}


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ((WHERE, "0:1", "one-vm-194", "0", "103"), ""),
        ((WHERE, "0:1:", "one-vm-194", "-", "0", "103"), ""),
        ((WHERE, "0:x", "one-vm-194", "-", "0", "103"), "the disks are '0:x'"),
        ((WHERE, "", "one-vm-194", "-", "0", "103"), "the disks are ''"),
        ((WHERE, "0", "0", "103"), "the arguments should be: prebackup HOST:DIRECTORY DISKS"),
        ((WHERE, "9", "one-vm-194", "-", "0", "103"), "no volume of onelun is known behind disk 9 of VM 0"),
        ((f"{WHERE}/disk.0", "0", "one-vm-194", "-", "0", "103"), "is a disk, where a VM's directory was expected"),
        ((WHERE, "0", "one-vm-194", "-", "7", "103"), "the call is for VM 7"),
        ((WHERE.replace("/0", "/7"), "0", "one-vm-194", "-", "7", "103"), "the document is of VM 0"),
        ((WHERE.replace("host01", "host09"), "0", "one-vm-194", "-", "0", "103"), "nobody serves the host 'host09'"),
        ((WHERE, "0", "one-vm-194", "-", "0", "x"), "the arguments should be: prebackup HOST:DIRECTORY DISKS"),
    ],
)
def test_arguments(vm: FrontEnd, argv: tuple[str, ...], reason: str) -> None:
    call = backup_call("prebackup", *argv)
    if not reason:
        done(vm, call)
        return

    assert reason in refused(vm, call)
    assert snapshots(vm) == {frozenset()}
    assert files(vm) == {}


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"", "OpenNebula's document is not XML"),
        (b"<VM><ID>0</ID><STATE>3</STATE><LCM_STATE>3</LCM_STATE></VM>", "has no BACKUPS/BACKUP_CONFIG"),
        (b"<IMAGE/>", "is 'IMAGE', not VM"),
    ],
)
def test_a_document_that_says_nothing_of_backups_is_a_clear_error(vm: FrontEnd, document: bytes, reason: str) -> None:
    assert reason in refused(vm, backup_call("prebackup")._replace(stdin=document))


def test_an_interactive_backup_is_refused(vm: FrontEnd) -> None:
    assert "BACKUP_CONFIG/INTERACTIVE is YES" in refused(vm, backup_call("prebackup", INTERACTIVE="YES"))


def test_the_script_can_be_found_by_opennebula_s_cancel(vm: FrontEnd) -> None:
    vm.hang_next()
    call = backup_call("prebackup_live")
    with vm.begin(call) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(call.stdin)
        process.stdin.close()
        called = Path(f"/proc/{process.pid}/comm")
        until = time.monotonic() + 60
        while not vm.cloud.asked and time.monotonic() < until:
            time.sleep(0.05)
        name, words = called.read_text().strip(), Path(f"/proc/{process.pid}/cmdline").read_text().replace("\0", " ")
        process.terminate()
        assert process.wait(60) == 1
    vm.release()

    assert name == "ruby"
    assert "prebackup_live " in words
    assert f"{GUEST} " in words
