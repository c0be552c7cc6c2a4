"""mv: disks and directories between hosts and the front-end, in every state of the VM that matters."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import Volume
from tests.support.oned import Oned, serving
from tests.support.recorded import RELEASES, Recorded, transfer_call

from onelun.driver.api import Api
from onelun.model import Kind, Owner
from onelun.rpc import message as m

MIB = 1 << 20
DEVICE = "/dev/onelun/nas1/tank/one-3-0-0"


@pytest.fixture
def front(front: FrontEnd) -> FrontEnd:
    front.settings["datastores"] = str(front.datastores)
    owner = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=3, regtime=1)
    front.cloud.volumes["nas1", "tank", "one-3"] = Volume(64 * MIB, owner)
    return front


@pytest.fixture
def oned(front: FrontEnd, tmp_path: Path) -> Iterator[Oned]:
    with serving(tmp_path) as (server, auth):
        front.api = Api(server.url, auth)
        server.vm("vm-0.lcm-12")
        yield server


def vm(front: FrontEnd, host: str | None = None) -> str:
    path = f"{front.datastores}/103/0"
    return path if host is None else f"{host}:{path}"


def disk(front: FrontEnd, host: str | None = None) -> str:
    return f"{vm(front, host)}/disk.0"


def ok(run: tuple[str, str, int]) -> None:
    assert (run[0], run[2]) == ("", 0), run[1]


def cloned(front: FrontEnd, release: str = "7.5") -> None:
    ok(front.run(transfer_call(release, "clone", "vm:nas1/tank/one-3", disk(front, "host01"), "0", "102")))


def moved(front: FrontEnd, source: str, target: str, release: str = "7.5") -> tuple[str, str, int]:
    return front.run(transfer_call(release, "mv", disk(front, source), disk(front, target), "0", "102"))


def moved_directory(front: FrontEnd, source: str, target: str, release: str = "7.5") -> tuple[str, str, int]:
    return front.run(transfer_call(release, "mv", vm(front, source), vm(front, target), "0", "103"))


def holders(front: FrontEnd) -> list[str]:
    return list(front.cloud.volume("nas1/tank/one-3-0-0").hosts)


@pytest.mark.parametrize("release", RELEASES)
def test_a_vm_stops_and_resumes_elsewhere_by_arguments_alone(front: FrontEnd, release: str) -> None:
    front.start(release)
    cloned(front, release)

    ok(moved(front, "host01", "vm", release))
    ok(moved_directory(front, "host01", "vm", release))
    stopped = holders(front), os.readlink(disk(front)), front.cloud.directories["node1"]
    ok(moved(front, "vm", "host02", release))
    ok(moved_directory(front, "vm", "host02", release))

    assert stopped == ([], DEVICE, {})
    assert holders(front) == ["node2"]
    assert front.cloud.link("node2", disk(front)) == DEVICE
    assert not os.path.exists(vm(front))


@pytest.mark.parametrize(
    ("lcm", "source", "target", "left", "attached"),
    [
        (8, "host01", "host02", ["node1"], ["node2"]),  # PROLOG_MIGRATE
        (43, "host01", "host02", ["node1"], ["node2"]),  # PROLOG_MIGRATE_POWEROFF
        (45, "host01", "host02", ["node1"], ["node2"]),  # PROLOG_MIGRATE_SUSPEND
        (10, "host01", "vm", ["node1"], []),  # EPILOG_STOP
        (41, "host01", "vm", ["node1"], []),
        (30, "host01", "vm", ["node1"], []),  # EPILOG_UNDEPLOY
        (42, "host01", "vm", ["node1"], []),
        (10, "host01", "host02", ["node1"], []),  # the front-end is a compute node too
        (9, "vm", "host02", [], ["node2"]),  # PROLOG_RESUME
        (49, "vm", "host02", [], ["node2"]),
        (31, "vm", "host02", [], ["node2"]),  # PROLOG_UNDEPLOY
        (50, "vm", "host02", [], ["node2"]),
        (60, "host01", "host02", ["node1"], ["node2"]),  # PROLOG_MIGRATE_UNKNOWN
        (61, "host01", "host02", ["node1"], ["node2"]),
    ],
)
def test_a_disk_moves_as_the_state_of_its_vm_asks(
    front: FrontEnd, oned: Oned, lcm: int, source: str, target: str, left: list[str], attached: list[str]
) -> None:
    front.start()
    cloned(front)
    if source == "vm":
        ok(moved(front, "host01", "vm"))
    front.cloud.asked.clear()
    oned.vm("vm-0.lcm-12", lcm=lcm)

    ok(moved(front, source, target))

    assert [request.remotehost for request in front.cloud.requests(m.UnmapZvol)] == left
    assert [request.remotehost for request in front.cloud.requests(m.MapZvol)] == attached
    assert all(request.keep_link for request in front.cloud.requests(m.UnmapZvol))
    assert all(request.force == (lcm in (60, 61)) for request in front.cloud.requests(m.UnmapZvol))
    assert holders(front) == attached
    where = front.cloud.link("node2", disk(front)) if target == "host02" else os.readlink(disk(front))
    assert where == DEVICE


def test_resuming_leaves_the_source_alone_whatever_it_is_called(front: FrontEnd, oned: Oned) -> None:
    front.start()
    cloned(front)
    ok(moved(front, "host01", "vm"))
    oned.vm("vm-0.lcm-12", lcm=9)
    front.cloud.asked.clear()

    ok(moved(front, "host01", "host02"))

    assert front.cloud.requests(m.UnmapZvol) == []
    assert holders(front) == ["node2"]


@pytest.mark.parametrize("lcm", [60, 61])
def test_a_lost_host_is_fenced_and_its_directory_left(front: FrontEnd, oned: Oned, lcm: int) -> None:
    front.start()
    cloned(front)
    front.cloud.dead.add("node1")
    oned.vm("vm-0.lcm-12", lcm=lcm)

    ok(moved(front, "host01", "host02"))
    ok(moved_directory(front, "host01", "host02"))

    assert holders(front) == ["node2"]


def test_a_host_that_is_lost_without_oned_saying_so_keeps_the_disk(front: FrontEnd, oned: Oned) -> None:
    front.start()
    cloned(front)
    front.cloud.dead.add("node1")
    oned.vm("vm-0.lcm-12", lcm=8)

    _, stderr, status = moved(front, "host01", "host02")

    assert status == 1
    assert "did not confirm" in stderr
    assert holders(front) == ["node1"]


@pytest.mark.parametrize("names", [("host01", "host01"), ("host01", "host01.example.org"), ("vm", "vm.example.org")])
def test_from_a_place_to_itself_is_nothing_to_do(front: FrontEnd, names: tuple[str, str]) -> None:
    front.settings["hosts"] = {"host01": "node1", "host01.example.org": "node1"}
    front.settings["names"] = ("vm", "vm.example.org")
    front.start()
    cloned(front)
    front.cloud.asked.clear()

    ok(moved(front, *names))
    ok(moved_directory(front, *names))

    assert front.cloud.asked == []


def test_a_link_that_went_with_its_device_is_made_again_for_whoever_moves_the_directory(front: FrontEnd) -> None:
    front.start()
    cloned(front)
    front.cloud.volume("nas1/tank/one-3-0-0").hosts.clear()
    front.cloud.directories["node1"][vm(front)].clear()

    ok(moved(front, "host01", "vm"))

    assert front.cloud.link("node1", disk(front)) == DEVICE
    assert os.readlink(disk(front)) == DEVICE


def test_a_directory_that_has_moved_on_does_not_come_back_with_its_disks_repeat(front: FrontEnd) -> None:
    front.start()
    cloned(front)
    ok(moved(front, "host01", "vm"))
    ok(moved_directory(front, "host01", "vm"))

    ok(moved(front, "host01", "vm"))

    assert front.cloud.directories["node1"] == {}


def test_a_disk_moves_to_another_system_datastore_of_its_host(front: FrontEnd) -> None:
    front.start()
    cloned(front)
    other = disk(front, "host01").replace("/103/", "/104/")

    ok(front.run(Recorded("tm/mv", (disk(front, "host01"), other, "0", "102"), b"")))

    assert front.cloud.volume("nas1/tank/one-3-0-0").hosts == {"node1": other.partition(":")[2]}


def fill(front: FrontEnd, host: str, files: dict[str, bytes]) -> None:
    directory = front.cloud.directories[host].setdefault(vm(front), {})
    for name, data in files.items():
        directory[name] = m.Entry(name=name, kind="file", mode=0o640, size=len(data))
        front.cloud.contents[host, vm(front), name] = data


def test_a_directory_carries_its_files_and_links(front: FrontEnd) -> None:
    front.start()
    cloned(front)
    files = {"deployment.0": b"<domain/>", "empty": b"", "large": os.urandom(3 * MIB + 5), "exact": os.urandom(2 * MIB)}
    fill(front, "node1", files)

    ok(moved_directory(front, "host01", "host02"))

    arrived = {name: front.cloud.contents["node2", vm(front), name] for name in files}
    assert arrived == files
    assert front.cloud.link("node2", disk(front)) == DEVICE
    assert vm(front) not in front.cloud.directories["node1"]


def test_a_directory_goes_to_the_front_end_and_back(front: FrontEnd) -> None:
    front.start()
    cloned(front)
    files = {"deployment.0": b"<domain/>", "large": os.urandom(2 * MIB + 5)}
    fill(front, "node1", files)

    ok(moved_directory(front, "host01", "vm"))
    there = {name: (Path(vm(front)) / name).read_bytes() for name in files}
    mode = (Path(vm(front)) / "large").stat().st_mode & 0o777
    ok(moved_directory(front, "vm", "host02"))

    assert there == files
    assert mode == 0o640
    assert {name: front.cloud.contents["node2", vm(front), name] for name in files} == files
    assert not os.path.exists(vm(front))


def test_moving_a_directory_again_succeeds(front: FrontEnd) -> None:
    front.start()
    cloned(front)

    for _ in range(2):
        ok(moved_directory(front, "host01", "host02"))

    assert vm(front) in front.cloud.directories["node2"]


def test_a_directory_that_nobody_has_is_an_error(front: FrontEnd) -> None:
    front.start("6.10")

    _, stderr, status = moved_directory(front, "host01", "host02", "6.10")

    assert status == 1
    assert f"neither host01 nor host02 has {vm(front)}" in stderr


def test_a_shared_directory_stays_where_it_is(front: FrontEnd) -> None:
    front.start()
    cloned(front)
    fill(front, "node1", {"checkpoint": b"x"})
    front.cloud.directories["node2"] = front.cloud.directories["node1"]

    ok(moved_directory(front, "host01", "host02"))

    assert sorted(front.cloud.directories["node1"][vm(front)]) == ["checkpoint", "disk.0"]


@pytest.mark.parametrize("files", [{}, {"checkpoint": b"x"}])
def test_what_a_killed_action_left_to_look_by_goes_with_the_next(front: FrontEnd, files: dict[str, bytes]) -> None:
    front.start()
    fill(front, "node1", {**files, ".onelun-1": b""})
    fill(front, "node2", {".onelun-1": b""} if not files else {})

    ok(moved_directory(front, "host01", "host02"))

    assert sorted(front.cloud.directories["node2"][vm(front)]) == sorted(files)
    assert vm(front) not in front.cloud.directories["node1"]


def test_a_shared_directory_is_not_taken_for_two_when_another_action_clears_it_up(front: FrontEnd) -> None:
    front.start()
    cloned(front)
    front.cloud.directories["node2"] = front.cloud.directories["node1"]
    read = front.cloud.read_file

    def cleared(host: str, request: m.ReadFile) -> m.FileRead:
        if request.name.startswith(".onelun-"):
            front.cloud.directories[host][vm(front)].pop(request.name, None)
        return read(host, request)

    front.cloud.read_file = cleared

    _, stderr, status = moved_directory(front, "host01", "host02")

    assert status == 1
    assert "another action is at work" in stderr
    assert sorted(front.cloud.directories["node1"][vm(front)]) == ["disk.0"]


def test_a_directory_that_is_too_large_is_refused_before_anything_changes(front: FrontEnd) -> None:
    front.start("6.10")
    cloned(front, "6.10")
    fill(front, "node1", {"core": bytes(17 * MIB)})

    _, stderr, status = moved_directory(front, "host01", "host02", "6.10")

    assert status == 1
    assert "has 17 MiB of files; only 16 MiB are moved" in stderr
    assert front.cloud.directories["node2"] == {}
    assert sorted(front.cloud.directories["node1"][vm(front)]) == ["core", "disk.0"]


def test_an_empty_directory_moves_too(front: FrontEnd) -> None:
    front.start()
    front.cloud.directories["node1"][vm(front)] = {}

    ok(moved_directory(front, "host01", "host02"))

    assert front.cloud.directories["node2"] == {vm(front): {}}
    assert front.cloud.directories["node1"] == {}


def test_a_directory_on_the_front_end_is_deleted_without_following_links(front: FrontEnd, tmp_path: Path) -> None:
    front.start()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    os.makedirs(vm(front))
    os.symlink(kept, f"{vm(front)}/link")

    ok(front.run(transfer_call("7.5", "delete", vm(front, "vm"), "0", "103")))
    ok(front.run(transfer_call("7.5", "delete", vm(front, "vm"), "0", "103")))

    assert not os.path.exists(vm(front))
    assert (kept / "file").exists()


def test_3_4_s_directories_end_in_a_slash(front: FrontEnd) -> None:
    front.start("3.4")
    cloned(front, "3.4")

    ok(front.run(Recorded("tm/mv", (vm(front, "host01") + "/", vm(front, "host02") + "/"), b"")))
    ok(front.run(Recorded("tm/delete", (vm(front, "host02") + "/",), b"")))

    assert front.cloud.directories == {"node1": {}, "node2": {}}
