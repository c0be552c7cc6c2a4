"""The checkpoint of a VM that is stopped or moved cold: as large as its memory, it goes by a volume of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.oned import Oned, serving
from tests.support.recorded import RELEASES, Recorded, migration_call, transfer_call

from onelun.driver.api import Api
from onelun.errors import CommandFailed, OnelunError, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc import message as m

MIB = 1 << 20
MEMORY = os.urandom(17 * MIB + 3)
VOLUME = "nas2/tank/one-vm-0-checkpoint"
NOTE = f"{VOLUME} {len(MEMORY)} 666\n".encode()


@pytest.fixture
def front(front: FrontEnd) -> FrontEnd:
    front.settings["datastores"] = str(front.datastores)
    front.settings["pools"] = ("nas2/tank",)
    fill(front, "node1", "deployment.0", b"<domain/>")
    fill(front, "node1", "checkpoint", MEMORY, mode=0o666)
    return front


@pytest.fixture
def oned(front: FrontEnd, tmp_path: Path) -> Iterator[Oned]:
    with serving(tmp_path) as (server, auth):
        front.api = Api(server.url, auth)
        server.vm("vm-0.lcm-12", lcm=10)
        server.datastore("onedatastore-show-sys_onelun", 103, pools="nas1/tank")
        yield server


def vm(front: FrontEnd, host: str | None = None) -> str:
    path = f"{front.datastores}/103/0"
    return path if host is None else f"{host}:{path}"


def fill(front: FrontEnd, host: str, name: str, data: bytes, mode: int = 0o640) -> None:
    directory = front.cloud.directories[host].setdefault(vm(front), {})
    directory[name] = m.Entry(name=name, kind="file", mode=mode, size=len(data))
    front.cloud.contents[host, vm(front), name] = data


def moved(front: FrontEnd, source: str, target: str, release: str = "7.5") -> tuple[str, str, int]:
    return front.run(transfer_call(release, "mv", vm(front, source), vm(front, target), "0", "103"))


def deleted(front: FrontEnd, host: str) -> tuple[str, str, int]:
    return front.run(transfer_call("7.5", "delete", vm(front, host), "0", "103"))


def ok(run: tuple[str, str, int]) -> None:
    assert (run[0], run[2]) == ("", 0), run[1]


def names(front: FrontEnd, host: str) -> list[str]:
    return sorted(front.cloud.directories[host].get(vm(front), {}))


def has_memory(front: FrontEnd, host: str) -> bool:
    entry = front.cloud.directories[host][vm(front)]["checkpoint"]
    return front.cloud.contents[host, vm(front), "checkpoint"] == MEMORY and entry.mode == 0o666


@pytest.mark.parametrize("release", RELEASES)
def test_a_vm_stops_and_resumes_elsewhere_with_its_memory(front: FrontEnd, release: str) -> None:
    front.start(release)

    ok(moved(front, "host01", "vm", release))
    there = sorted(os.listdir(vm(front))), (Path(vm(front)) / "checkpoint.volume").read_bytes()
    owner, hosts = front.cloud.volume(VOLUME).owner, front.cloud.volume(VOLUME).hosts
    ok(moved(front, "vm", "host02", release))

    assert there == (["checkpoint.volume", "deployment.0"], NOTE)
    assert (owner, hosts) == (Owner(kind=Kind.CHECKPOINT, cloud=CLOUD, vm_id=0), {})
    assert names(front, "node1") == []
    assert names(front, "node2") == ["checkpoint", "deployment.0"]
    assert has_memory(front, "node2")
    assert front.cloud.names() == []


def test_a_vm_moves_from_host_to_host_with_its_memory(front: FrontEnd) -> None:
    front.start()

    ok(moved(front, "host01", "host02"))

    assert has_memory(front, "node2")
    assert names(front, "node2") == ["checkpoint", "deployment.0"]
    assert front.cloud.names() == []


def test_the_volume_is_in_a_pool_of_the_system_datastore(front: FrontEnd, oned: Oned) -> None:
    front.start()

    ok(moved(front, "host01", "vm"))

    assert front.cloud.names() == ["nas1/tank/one-vm-0-checkpoint"]


def test_a_stopping_vm_keeps_it_on_the_volume_also_where_the_front_end_is_a_host(front: FrontEnd, oned: Oned) -> None:
    front.start()

    ok(moved(front, "host01", "host02"))
    stopped = names(front, "node2"), front.cloud.names()
    oned.vm("vm-0.lcm-12", lcm=9)
    ok(moved(front, "host02", "host01"))

    assert stopped == (["checkpoint.volume", "deployment.0"], ["nas1/tank/one-vm-0-checkpoint"])
    assert has_memory(front, "node1")
    assert front.cloud.names() == []


def test_a_small_checkpoint_goes_with_the_directory(front: FrontEnd) -> None:
    fill(front, "node1", "checkpoint", b"small")
    front.start()

    ok(moved(front, "host01", "vm"))

    assert (Path(vm(front)) / "checkpoint").read_bytes() == b"small"
    assert front.cloud.names() == []


def test_an_older_checkpoint_and_an_empty_one_stay_behind(front: FrontEnd) -> None:
    fill(front, "node1", "checkpoint", b"")
    fill(front, "node1", "checkpoint.1700000000", MEMORY)
    front.start()

    ok(moved(front, "host01", "host02"))

    assert names(front, "node2") == ["deployment.0"]


# The steps of a move from host to host, by the request that fails, and who has the memory then.
STEPS = [
    ("nas2", m.CreateZvol, "node1"),
    ("nas2", m.MapZvol, "node1"),
    ("node1", m.StoreFile, "node1"),
    ("nas2", m.DelZvol, "node1"),
    ("node2", m.PutEntry, "node1"),
    ("node2", m.FetchFile, "node1"),
    ("node1", m.RemoveEntry, "node1"),
]


@pytest.mark.parametrize(("node", "step", "has"), STEPS)
@pytest.mark.parametrize("error", [CommandFailed("it broke"), Unreachable("nobody is there")])
def test_whatever_fails_in_the_middle_a_repeat_goes_on(
    front: FrontEnd, node: str, step: type[m.Request], has: str, error: OnelunError
) -> None:
    front.start()
    front.cloud.fail(node, step, error)

    _, stderr, status = moved(front, "host01", "host02")
    kept = has_memory(front, has)
    ok(moved(front, "host01", "host02"))

    assert status == 1
    assert error.sentence in stderr
    assert kept
    assert has_memory(front, "node2")
    assert front.cloud.names() == []
    assert names(front, "node2") == ["checkpoint", "deployment.0"]


@pytest.mark.parametrize(("node", "step", "_has"), STEPS)
def test_whatever_fails_in_the_middle_deleting_the_vm_leaves_nothing(
    front: FrontEnd, node: str, step: type[m.Request], _has: str
) -> None:
    front.start()
    front.cloud.fail(node, step, CommandFailed("it broke"))
    moved(front, "host01", "host02")

    for host in ("host01", "host02"):
        ok(deleted(front, host))
        ok(deleted(front, host))

    assert front.cloud.names() == []
    assert front.cloud.directories == {"node1": {}, "node2": {}}


@pytest.mark.parametrize("step", [m.MapZvol, m.FetchFile, m.DelZvol])
def test_a_resume_that_fails_keeps_the_volume_and_goes_on_at_another_host(
    front: FrontEnd, step: type[m.Request]
) -> None:
    front.start()
    ok(moved(front, "host01", "vm"))
    front.cloud.fail("node2" if step is m.FetchFile else "nas2", step, CommandFailed("it broke"))

    status = moved(front, "vm", "host02")[2]
    kept = front.cloud.names()
    ok(moved(front, "vm", "host01"))

    assert (status, kept) == (1, [VOLUME])
    assert has_memory(front, "node1")
    assert front.cloud.names() == []


def test_a_resume_again_finds_the_file_where_the_volume_is_gone(front: FrontEnd) -> None:
    front.start()
    ok(moved(front, "host01", "vm"))
    front.cloud.fail("node2", m.RemoveEntry, CommandFailed("it broke"))

    status = moved(front, "vm", "host02")[2]
    gone = front.cloud.names()
    ok(moved(front, "vm", "host02"))

    assert (status, gone) == (1, [])
    assert has_memory(front, "node2")
    assert names(front, "node2") == ["checkpoint", "deployment.0"]


def test_a_checkpoint_that_is_nowhere_is_an_error(front: FrontEnd) -> None:
    front.start("6.10")
    ok(moved(front, "host01", "vm", "6.10"))
    front.cloud.volumes.clear()

    _, stderr, status = moved(front, "vm", "host02", "6.10")

    assert status == 1
    assert stderr == (
        f"cannot move the VM's directory on vm: the checkpoint of VM 0 should be on {VOLUME}, and there is no such volume\n"
    )
    assert os.path.exists(f"{vm(front)}/checkpoint.volume")


def test_without_a_pool_nothing_is_changed_and_it_says_what_to_set(front: FrontEnd) -> None:
    front.settings["pools"] = ()
    front.start()

    _, stderr, status = moved(front, "host01", "vm")

    assert status == 1
    assert "system datastore 103 does not say where volatile disks and checkpoints live: set ONELUN_POOLS" in stderr
    assert names(front, "node1") == ["checkpoint", "deployment.0"]
    assert not os.path.exists(vm(front))


def test_without_room_nothing_is_changed(front: FrontEnd) -> None:
    front.cloud.free["nas2", "tank"] = 16 * MIB
    front.start()

    _, stderr, status = moved(front, "host01", "vm")

    assert status == 1
    assert "GiB are needed: nas2/tank has 0.0 GiB free" in stderr
    assert names(front, "node1") == ["checkpoint", "deployment.0"]


def test_a_note_that_names_another_volume_is_refused(front: FrontEnd) -> None:
    fill(front, "node1", "checkpoint.volume", b"nas2/tank/one-7 5 600\n")
    front.start()

    for run in (moved(front, "host01", "vm"), deleted(front, "host01")):
        assert run[2] == 1
        assert "names no volume of a checkpoint of VM 0" in run[1]
    assert names(front, "node1") == ["checkpoint", "checkpoint.volume", "deployment.0"]


@pytest.mark.parametrize("named", ["vm", "host01"])
def test_a_stopped_vm_is_deleted_with_its_checkpoint_whichever_host_oned_names(front: FrontEnd, named: str) -> None:
    front.start()
    ok(moved(front, "host01", "vm"))

    ok(deleted(front, named))
    ok(deleted(front, named))

    assert front.cloud.names() == []


def test_with_its_host_dead_the_volume_is_found_by_its_name(front: FrontEnd, oned: Oned) -> None:
    front.start()
    front.cloud.fail("node2", m.PutEntry, CommandFailed("it broke"))
    moved(front, "host01", "host02")
    before = front.cloud.names()
    front.cloud.dead.add("node1")
    oned.vm("vm-0.lcm-12", lcm=23)

    ok(deleted(front, "host01"))

    assert before == ["nas1/tank/one-vm-0-checkpoint"]
    assert front.cloud.names() == []


def test_a_vm_that_moves_while_it_runs_leaves_an_old_checkpoint_behind(front: FrontEnd) -> None:
    front.start()
    call = migration_call("premigrate")
    argv = ("host01", "host02", vm(front), *call.argv[3:])
    text = "<VM><ID>0</ID><STATE>3</STATE><LCM_STATE>4</LCM_STATE><TEMPLATE></TEMPLATE></VM>"

    ok(front.run(Recorded("tm/premigrate", argv, migration_call("premigrate", text=text).stdin)))

    assert names(front, "node2") == ["deployment.0"]
    assert names(front, "node1") == ["checkpoint", "deployment.0"]
