"""monitor of a system datastore: the sizes of disks and snapshots, which go to OpenNebula's monitoring daemon by another way."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import Placement, Volume
from tests.support.recorded import system_monitor_call

from onelun.errors import NoReply
from onelun.model import Kind, Owner
from onelun.rpc.message import ListDisks

MIB = 1 << 20
POOLS = "nas1/tank nas2/tank"
# The end of OpenNebula's function alone is ours here: it writes down what it would send, a datagram a file.
FUNCTIONS = """
function send_to_monitor {
    echo $4 >"$(mktemp "$ONE_LOCATION/sent.XXXXXX")"
    printf '%s %s %s' "$1" "$2" "$3" >"$ONE_LOCATION/words"
}
"""


@pytest.fixture
def location(front: FrontEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where OpenNebula is, with its functions for scripts."""
    place = tmp_path / "one"
    (place / "lib" / "sh").mkdir(parents=True)
    (place / "lib" / "sh" / "scripts_common.sh").write_text(FUNCTIONS)
    monkeypatch.setenv("ONE_LOCATION", str(place))
    return place


def disk(front: FrontEnd, vm: int, number: int, mib: int, *, nas: str = "nas1", datastore: int = 103) -> Volume:
    """A VM's disk that takes so much of its pool."""
    owner = Owner(kind=Kind.DISK, cloud=CLOUD, vm_id=vm, disk_id=number)
    key = (nas, "tank", f"one-1-{vm}-{number}")
    front.cloud.volumes[key] = Volume(mib * MIB, owner)
    path = f"/var/lib/one/datastores/{datastore}/{vm}/disk.{number}"
    front.cloud.placements[vm, number] = Placement(key, path, "node1")
    return front.cloud.volumes[key]


def told(location: Path) -> dict[int, str]:
    """What was sent, decoded as monitord does, by VM."""
    found: dict[int, str] = {}
    for message in location.glob("sent.*"):
        for vm, text in re.findall(r'VM=\[ID=(\d+), MONITOR="([^"]*)"\]', message.read_text()):
            assert int(vm) not in found, "of two elements of one VM the later replaces the earlier"
            found[int(vm)] = base64.b64decode(text, validate=True).decode()
    return found


def test_the_sizes_of_disks_and_snapshots_go_to_the_monitoring_daemon(front: FrontEnd, location: Path) -> None:
    disk(front, 42, 0, 100).snapshots = {"snap-0": "", "snap-3": "", "copying": ""}
    disk(front, 42, 2, 8, nas="nas2")
    disk(front, 43, 0, 7)
    front.start()

    run = front.run(system_monitor_call("6.10", POOLS))

    assert run == ("USED_MB=115\nTOTAL_MB=204800\nFREE_MB=204685\n", "", 0)
    assert told(location) == {
        42: "DISK_SIZE=[ID=0,SIZE=100] SNAPSHOT_SIZE=[ID=0,DISK_ID=0,SIZE=1] SNAPSHOT_SIZE=[ID=3,DISK_ID=0,SIZE=1]"
        " DISK_SIZE=[ID=2,SIZE=8]",
        43: "DISK_SIZE=[ID=0,SIZE=7]",
    }
    assert (location / "words").read_text() == "MONITOR_VM 0 -1"
    assert len(front.cloud.requests(ListDisks)) == 2


def test_disks_of_another_system_datastore_are_left_to_its_own_monitoring(front: FrontEnd, location: Path) -> None:
    disk(front, 42, 0, 100, datastore=104)
    disk(front, 103, 0, 9, datastore=100)
    front.start()

    assert front.run(system_monitor_call("7.5", POOLS))[2] == 0

    assert told(location) == {}


def test_without_being_asked_for_sizes_nobody_is(front: FrontEnd, location: Path) -> None:
    disk(front, 42, 0, 100)
    front.start()
    call = system_monitor_call("7.5", POOLS)
    text = base64.b64decode(call.stdin).replace(b"<MONITOR_VM_DISKS>1", b"<MONITOR_VM_DISKS>0")

    assert front.run(call._replace(stdin=base64.b64encode(text)))[2] == 0

    assert front.cloud.requests(ListDisks) == []


def test_a_dead_nas_takes_only_its_own_disks_with_it(front: FrontEnd, location: Path) -> None:
    disk(front, 42, 0, 100)
    disk(front, 43, 0, 7, nas="nas2")
    front.cloud.dead.add("nas2")
    front.start("6.10")

    stdout, stderr, status = front.run(system_monitor_call("6.10", POOLS))

    assert (stdout, stderr, status) == ("", "cannot monitor datastore 103: nobody serves nas2\n", 1)
    assert told(location) == {42: "DISK_SIZE=[ID=0,SIZE=100]"}


def test_a_nas_that_is_of_no_use_to_this_datastore_fails_nothing(front: FrontEnd, location: Path) -> None:
    disk(front, 42, 0, 100)
    front.cloud.dead.add("nas2")
    front.start()

    stdout, stderr, status = front.run(system_monitor_call("7.5", "nas1/tank"))

    assert (stdout.splitlines()[0], status) == ("USED_MB=100", 0)
    assert "the sizes of VM disks on nas2 are not told: nobody serves nas2" in stderr
    assert told(location) == {42: "DISK_SIZE=[ID=0,SIZE=100]"}


def test_a_pool_that_hangs_and_a_nas_that_does_not_answer_are_named(front: FrontEnd, location: Path) -> None:
    disk(front, 42, 0, 100)
    front.cloud.silent_pools["nas1"] = {"slow": "pool slow did not tell"}
    front.cloud.fail("nas2", ListDisks, NoReply("nas2 did not answer list_disks in time"))
    front.start()

    _, stderr, status = front.run(system_monitor_call("7.5", POOLS))

    assert status == 0
    assert "the sizes of VM disks in nas1/slow are not told: pool slow did not tell" in stderr
    assert "the sizes of VM disks on nas2 are not told: nas2 did not answer list_disks in time" in stderr
    assert told(location) == {42: "DISK_SIZE=[ID=0,SIZE=100]"}


def test_many_vms_are_told_in_messages_that_one_datagram_carries(front: FrontEnd, location: Path) -> None:
    for vm in range(300):
        disk(front, vm, 0, vm + 1)
    front.start()

    assert front.run(system_monitor_call("7.5", POOLS))[2] == 0

    assert told(location) == {vm: f"DISK_SIZE=[ID=0,SIZE={vm + 1}]" for vm in range(300)}
    assert max(len(message.read_text()) for message in location.glob("sent.*")) <= 3001


def test_a_function_that_fails_is_named_and_the_datastore_is_monitored(front: FrontEnd, location: Path) -> None:
    disk(front, 42, 0, 100)
    functions = location / "lib" / "sh" / "scripts_common.sh"
    functions.write_text("function send_to_monitor { echo no nc >&2; return 1; }\n")
    front.start()

    stdout, stderr, status = front.run(system_monitor_call("7.5", POOLS))

    assert (stdout.splitlines()[0], status) == ("USED_MB=100", 0)
    assert "the sizes of some VM disks are not told: send_to_monitor failed with status 1: no nc" in stderr


def test_without_opennebulas_functions_nobody_is_asked_for_sizes(
    front: FrontEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ONE_LOCATION", str(tmp_path / "nowhere"))
    front.start()

    run = front.run(system_monitor_call("7.5", POOLS))

    assert run[1:] == ("", 0)
    assert f"there is no {tmp_path}/nowhere/lib/sh/scripts_common.sh" in caplog.text
    assert front.cloud.requests(ListDisks) == []
