"""The transfer actions, as each release calls them, with oned's API and without it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import Volume
from tests.support.oned import Oned, serving
from tests.support.recorded import RELEASES, Recorded, error, transfer_call

from onelun.driver.api import Api
from onelun.errors import Busy, Conflict, Interrupted, NoReply, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc import message as m

MIB = 1 << 20
VM = "/var/lib/one/datastores/103/0"
MODERN = tuple(release for release in RELEASES if release != "3.4")
# onevm show of VM 0: disk 0 is a clone grown to 96 MB, 1 persistent, 4 a CD-ROM, 5 a clone grown to 256 MB.
RUNNING = "vm-0.lcm-12"


def image(front: FrontEnd, image_id: int, *, size: int = 64 * MIB, nas: str = "nas1") -> None:
    owner = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=image_id, regtime=1)
    front.cloud.volumes[nas, "tank", f"one-{image_id}"] = Volume(size, owner)


def on(host: str, disk: int, vm: str = VM) -> str:
    return f"{host}:{vm.replace('/one/', '/one//')}/disk.{disk}"


@pytest.fixture
def front(front: FrontEnd) -> FrontEnd:
    for image_id in (3, 4, 8):
        image(front, image_id)
    return front


@pytest.fixture
def oned(front: FrontEnd, tmp_path: Path) -> Iterator[Oned]:
    with serving(tmp_path) as (server, auth):
        front.api = Api(server.url, auth)
        server.vm(RUNNING)
        yield server


def ok(run: tuple[str, str, int]) -> None:
    stdout, stderr, status = run
    assert (stdout, status) == ("", 0), stderr
    assert all(line.startswith("INFO: ") for line in stderr.splitlines())


@pytest.mark.parametrize("release", RELEASES)
def test_the_seed_vm_lives_its_life_by_arguments_alone(front: FrontEnd, release: str) -> None:
    front.start(release)
    run = lambda name, *argv: ok(front.run(transfer_call(release, name, *argv, "0", "102")))  # noqa: E731
    text = "/dev/onelun/nas1/tank/one-3-0-0"

    run("clone", "vm:nas1/tank/one-3", on("host01", 0))
    run("ln", "vm:nas1/tank/one-4", on("host01", 1))
    made = front.cloud.link("node1", f"{VM}/disk.0"), front.cloud.link("node1", f"{VM}/disk.1")
    for disk in (0, 1):
        run("mv", on("host01", disk), on("host02", disk))
    moved = front.cloud.link("node2", f"{VM}/disk.0"), front.cloud.link("node1", f"{VM}/disk.0")
    hosts = dict(front.cloud.volume("nas1/tank/one-3-0-0").hosts)
    run("delete", on("host02", 0))
    run("mvds", on("host02", 1), "nas1/tank/one-4")

    assert made == (text, "/dev/onelun/nas1/tank/one-4")
    assert moved == (text, text)
    assert hosts == {"node2": f"{VM}/disk.0"}
    assert front.cloud.names() == ["nas1/tank/one-3", "nas1/tank/one-4", "nas1/tank/one-8"]
    assert front.cloud.placements == {}
    assert not any(volume.hosts for volume in front.cloud.volumes.values())


@pytest.mark.parametrize("release", RELEASES)
def test_every_action_may_be_repeated(front: FrontEnd, release: str) -> None:
    front.start(release)
    calls = [
        ("clone", "vm:nas1/tank/one-3", on("host01", 0)),
        ("ln", "vm:nas1/tank/one-4", on("host01", 1)),
        ("mv", on("host01", 1), on("host02", 1)),
        ("mvds", on("host02", 1), "nas1/tank/one-4"),
        ("delete", on("host01", 0)),
    ]

    for name, *argv in calls:
        for _ in range(2):
            ok(front.run(transfer_call(release, name, *argv, "0", "102")))

    assert front.cloud.names() == ["nas1/tank/one-3", "nas1/tank/one-4", "nas1/tank/one-8"]


@pytest.mark.parametrize("release", RELEASES)
def test_an_error_has_the_form_of_the_release(front: FrontEnd, release: str) -> None:
    front.start(release)
    front.cloud.fail("nas1", m.MapZvol, Conflict("volume one-4 is mapped to node2: unmap it there first"))

    run = front.run(transfer_call(release, "ln", "vm:nas1/tank/one-4", on("host01", 1), "0", "102"))

    sentence = "cannot link nas1/tank/one-4: volume one-4 is mapped to node2: unmap it there first"
    assert run == ("", error(release, sentence), 1)


def test_an_unknown_release_is_judged_by_its_arguments(front: FrontEnd) -> None:
    front.start(None)
    argv = ("vm:nas1/tank/one-99", on("host01", 1))
    sentence = "cannot link nas1/tank/one-99: there is no volume one-99 in pool tank"

    old = front.run(Recorded("tm/ln", argv, b""))
    modern = front.run(Recorded("tm/ln", (*argv, "0", "102"), b""))

    assert old == ("", error("3.4", sentence), 1)
    assert modern == ("", f"{sentence}\n", 1)


def test_a_disk_grows_to_what_oned_says(front: FrontEnd, oned: Oned) -> None:
    front.start()

    ok(front.run(transfer_call("7.5", "clone", "vm:nas1/tank/one-3", on("host01", 0), "0", "102")))

    assert front.cloud.volume("nas1/tank/one-3-0-0").size == 96 * MIB


def test_a_disk_that_is_as_large_as_its_image_keeps_the_image_s_very_size(front: FrontEnd, oned: Oned) -> None:
    image(front, 3, size=64 * MIB - 512)
    oned.disk(0, 0, SIZE="64")
    front.start()

    ok(front.run(transfer_call("7.5", "clone", "vm:nas1/tank/one-3", on("host01", 0), "0", "102")))

    assert front.cloud.volume("nas1/tank/one-3-0-0").size == 64 * MIB - 512


@pytest.mark.parametrize(("size", "expected"), [("100", 100 * MIB), ("64", 64 * MIB - 512), ("10", 64 * MIB - 512)])
def test_3_4_passes_the_size_itself(front: FrontEnd, size: str, expected: int) -> None:
    image(front, 3, size=64 * MIB - 512)
    front.start("3.4")

    ok(front.run(Recorded("tm/clone", ("fe:nas1/tank/one-3", on("host01", 0), size), b"")))

    assert front.cloud.volume("nas1/tank/one-3-0-0").size == expected


def test_a_cd_rom_is_attached_for_reading(front: FrontEnd, oned: Oned) -> None:
    front.start()

    ok(front.run(transfer_call("7.5", "ln", "vm:nas1/tank/one-8", on("host01", 4), "0", "102")))
    ok(front.run(transfer_call("7.5", "ln", "vm:nas1/tank/one-4", on("host01", 1), "0", "102")))

    assert front.cloud.volume("nas1/tank/one-8").readonly
    assert not front.cloud.volume("nas1/tank/one-4").readonly


@pytest.mark.parametrize(("disk", "source"), [(1, "one-4"), (4, "one-8")])
def test_deleting_a_persistent_disk_or_a_cd_rom_only_detaches_it(
    front: FrontEnd, oned: Oned, disk: int, source: str
) -> None:
    front.start()
    ok(front.run(transfer_call("7.5", "ln", f"vm:nas1/tank/{source}", on("host01", disk), "0", "102")))

    ok(front.run(transfer_call("7.5", "delete", on("host01", disk), "0", "102")))

    assert front.cloud.volume(f"nas1/tank/{source}").hosts == {}
    assert front.cloud.link("node1", f"{VM}/disk.{disk}") is None


def test_deleting_what_nobody_knows_removes_the_link(front: FrontEnd) -> None:
    front.start("6.10")
    front.cloud.directories["node1"][VM] = {"disk.9": m.Entry(name="disk.9", kind="link", target="x")}

    assert front.run(transfer_call("6.10", "delete", on("host01", 9), "0", "102")) == ("", "", 0)

    assert front.cloud.link("node1", f"{VM}/disk.9") is None


def test_a_nas_that_is_down_is_never_taken_for_one_that_knows_nothing(front: FrontEnd) -> None:
    front.start("6.10")
    front.cloud.dead.add("nas2")

    stdout, stderr, status = front.run(transfer_call("6.10", "delete", on("host01", 0), "0", "102"))

    assert (stdout, status) == ("", 1)
    assert "nobody serves nas2" in stderr


@pytest.mark.parametrize(("lcm", "state"), [(15, 3), (23, 3), (0, 6)])
def test_a_dead_host_does_not_stop_the_end_of_a_vm(front: FrontEnd, oned: Oned, lcm: int, state: int) -> None:
    front.start()
    ok(front.run(transfer_call("7.5", "clone", "vm:nas1/tank/one-3", on("host01", 0), "0", "102")))
    front.cloud.dead.add("node1")
    oned.vm(RUNNING, lcm=lcm, state=state)

    disk = front.run(transfer_call("7.5", "delete", on("host01", 0), "0", "102"))
    directory = front.run(transfer_call("7.5", "delete", f"host01:{VM}", "0", "103"))

    ok(disk)
    ok(directory)
    assert "host01 did not answer and owes the clean-up" in disk[1]
    assert front.cloud.volume("nas1/tank/one-3-0-0") is None


def test_a_dead_host_keeps_the_disk_of_a_vm_that_lives_there(front: FrontEnd, oned: Oned) -> None:
    front.start()
    ok(front.run(transfer_call("7.5", "clone", "vm:nas1/tank/one-3", on("host01", 0), "0", "102")))
    front.cloud.dead.add("node1")

    _, stderr, status = front.run(transfer_call("7.5", "delete", on("host01", 0), "0", "102"))

    assert status == 1
    assert "did not confirm" in stderr
    assert front.cloud.volume("nas1/tank/one-3-0-0") is not None


def test_a_vm_that_oned_has_forgotten_is_deleted_by_its_placements(front: FrontEnd, oned: Oned) -> None:
    front.start()
    ok(front.run(transfer_call("7.5", "clone", "vm:nas1/tank/one-3", on("host01", 0), "0", "102")))
    oned.forget(0)

    ok(front.run(transfer_call("7.5", "delete", on("host01", 0), "0", "102")))

    assert front.cloud.volume("nas1/tank/one-3-0-0") is None


def test_3_4_saves_a_disk_over_another_image(front: FrontEnd) -> None:
    front.start("3.4")
    ok(front.run(Recorded("tm/clone", ("fe:nas1/tank/one-3", on("host01", 0)), b"")))

    for _ in range(2):
        ok(front.run(Recorded("tm/mvds", (on("host01", 0), "fe:nas1/tank/one-8"), b"")))

    assert front.cloud.volume("nas1/tank/one-8").filled_from == (0, 0)
    assert front.cloud.volume("nas1/tank/one-3-0-0") is None
    assert len(front.cloud.requests(m.SaveZvol)) == 1


def test_3_4_saves_a_disk_whose_placement_was_lost(front: FrontEnd) -> None:
    front.start("3.4")
    ok(front.run(Recorded("tm/clone", ("fe:nas1/tank/one-3", on("host01", 0)), b"")))
    front.cloud.placements.clear()

    ok(front.run(Recorded("tm/mvds", (on("host01", 0), "nas1/tank/one-8"), b"")))

    assert front.cloud.volume("nas1/tank/one-8").filled_from == (0, 0)


@pytest.mark.parametrize("release", MODERN)
def test_mvds_of_another_s_image_takes_nothing_back(front: FrontEnd, release: str) -> None:
    front.start(release)
    ok(front.run(transfer_call(release, "ln", "vm:nas1/tank/one-4", on("host01", 1), "0", "102")))

    _, stderr, status = front.run(transfer_call(release, "mvds", on("host01", 1), "nas1/tank/one-8", "0", "102"))

    assert status == 1
    assert "disk 1 of VM 0 is nas1/tank/one-4, not nas1/tank/one-8: nothing was taken back" in stderr
    assert front.cloud.volume("nas1/tank/one-4").hosts == {"node1": f"{VM}/disk.1"}


def test_a_clone_that_cannot_be_attached_leaves_nothing(front: FrontEnd) -> None:
    front.start("6.10")
    front.cloud.dead.add("node1")

    run = front.run(transfer_call("6.10", "clone", "vm:nas1/tank/one-3", on("host01", 0), "0", "102"))

    assert run == ("", "cannot clone nas1/tank/one-3: nobody serves node1\n", 1)
    assert front.cloud.volume("nas1/tank/one-3-0-0") is None


def test_a_clone_whose_attachment_is_unknown_stays(front: FrontEnd) -> None:
    front.start("6.10")
    front.cloud.fail("nas1", m.MapZvol, NoReply("nas1 took it and did not answer"))

    _, _, status = front.run(transfer_call("6.10", "clone", "vm:nas1/tank/one-3", on("host01", 0), "0", "102"))

    assert status == 1
    assert front.cloud.volume("nas1/tank/one-3-0-0") is not None


def test_work_that_an_agent_s_restart_undid_is_asked_anew(front: FrontEnd) -> None:
    front.start("6.10")
    front.cloud.fail("nas1", m.MapZvol, Interrupted("the agent restarted"), Busy("somebody else is at it"))

    ok(front.run(transfer_call("6.10", "ln", "vm:nas1/tank/one-4", on("host01", 1), "0", "102")))

    ids = [id_ for _, request, id_ in front.cloud.asked if isinstance(request, m.MapZvol)]
    assert len(ids) == len(set(ids)) == 3


def test_somebody_who_stays_busy_is_an_error(front: FrontEnd) -> None:
    front.start("6.10")
    front.cloud.fail("nas1", m.MapZvol, *[Busy("somebody else is at it")] * 50)

    _, stderr, status = front.run(transfer_call("6.10", "ln", "vm:nas1/tank/one-4", on("host01", 1), "0", "102"))

    assert (stderr, status) == ("cannot link nas1/tank/one-4: somebody else is at it\n", 1)


@pytest.mark.parametrize(
    ("name", "argv", "reason"),
    [
        ("clone", ("vm:onelun/one-3", on("host01", 0)), "'onelun/one-3' is no SOURCE of onelun"),
        ("clone", ("vm:nas1/tank/..", on("host01", 0)), "is no volume name"),
        ("clone", ("vm:nas1/tank/one-3\nx", on("host01", 0)), "is no volume name"),
        ("clone", ("vm:nas1/tank/" + "a" * 300, on("host01", 0)), "is no volume name"),
        ("clone", ("vm:nas1/tank/one-77", on("host01", 0)), "there is no volume one-77 in pool tank to clone"),
        ("clone", ("vm:nas9/tank/one-3", on("host01", 0)), "nobody serves nas9"),
        (
            "clone",
            ("vm:nas1/tank/one-3", on("host09", 0)),
            "nobody serves the host 'host09': name its agent in frontend.hosts",
        ),
        ("clone", ("vm:nas1/tank/one-3", on("vm", 0)), "vm is the front-end, which connects no disks"),
        ("clone", ("vm:nas1/tank/one-3", f"host01:{VM}"), "is a directory, where a disk.N was expected"),
        ("clone", ("vm:nas1/tank/one-3", "host01:/etc/0/disk.0"), "is outside the datastore directory"),
        ("clone", ("vm:nas1/tank/one-3", f"host01:{VM}/../../../x/disk.0"), "has '..' in it"),
        ("clone", ("vm:nas1/tank/one-3", f"{VM}/disk.0"), "is no location: it should be HOST:PATH"),
        ("clone", ("vm:nas1/tank/one-3", on("host01", 0, "/var/lib/one/datastores/103/7")), "the call is for VM 0"),
        ("clone", ("vm:nas1/tank/one-3",), "the arguments should be"),
        ("mv", (on("host01", 0), f"host02:{VM}"), "a disk is moved to a disk.N and a directory to a directory"),
        ("mv", (on("host01", 0), on("host02", 0)), "no volume of onelun is known behind disk 0 of VM 0"),
        ("mv", (on("host01", 0), on("host02", 0, "/var/lib/one/datastores/103/7")), "is not moved to VM 7"),
        ("delete", ("host01:/var/lib/one",), "is outside the datastore directory"),
        ("delete", ("host01:/var/lib/one/datastores/103",), "is neither a VM's directory"),
        ("mvds", (on("host01", 0), "host01:/x"), "is no SOURCE of onelun"),
    ],
)
def test_bad_arguments_are_a_clear_error(front: FrontEnd, name: str, argv: tuple[str, ...], reason: str) -> None:
    front.start("6.10")
    before = front.cloud.names()

    stdout, stderr, status = front.run(transfer_call("6.10", name, *argv, "0", "102"))

    assert (stdout, status) == ("", 1)
    assert reason in stderr
    assert stderr.count("\n") == 1
    assert front.cloud.names() == before


def test_an_api_that_is_down_is_an_error_and_nothing_is_guessed(front: FrontEnd, oned: Oned) -> None:
    front.start("6.10")
    oned.broken = b"this is no XML-RPC"

    _, stderr, status = front.run(transfer_call("6.10", "delete", on("host01", 0), "0", "102"))

    assert status == 1
    assert "oned's answer to one.vm.info is not XML-RPC" in stderr
    assert front.cloud.asked == []


def test_a_vm_that_does_not_exist_gets_no_disk(front: FrontEnd, oned: Oned) -> None:
    oned.forget(0)
    front.start("6.10")

    _, stderr, status = front.run(transfer_call("6.10", "ln", "vm:nas1/tank/one-4", on("host01", 1), "0", "102"))

    assert status == 1
    assert "oned has no VM 0" in stderr
    assert front.cloud.asked == []


def test_the_session_is_read_again_when_it_is_refused(front: FrontEnd, oned: Oned, tmp_path: Path) -> None:
    front.start("6.10")
    ok(front.run(transfer_call("6.10", "ln", "vm:nas1/tank/one-4", on("host01", 1), "0", "102")))
    oned.session = "oneadmin:another"
    (tmp_path / "one_auth").write_text("oneadmin:another\n")

    ok(front.run(transfer_call("6.10", "ln", "vm:nas1/tank/one-4", on("host01", 1), "0", "102")))

    assert oned.refused == 1


def test_a_wrong_session_is_an_error(front: FrontEnd, oned: Oned) -> None:
    front.start("6.10")
    oned.session = "oneadmin:another"

    _, stderr, status = front.run(transfer_call("6.10", "ln", "vm:nas1/tank/one-4", on("host01", 1), "0", "102"))

    assert status == 1
    assert "refuses one.vm.info: [one.vm.info] User couldn't be authenticated" in stderr


def test_an_oned_that_is_down_is_an_error(front: FrontEnd, tmp_path: Path) -> None:
    (tmp_path / "auth").write_text("a:b")
    front.api = Api("http://127.0.0.1:1/RPC2", str(tmp_path / "auth"))
    front.start("6.10")

    _, stderr, status = front.run(transfer_call("6.10", "ln", "vm:nas1/tank/one-4", on("host01", 1), "0", "102"))

    assert status == 1
    assert "oned does not answer at http://127.0.0.1:1/RPC2 (frontend.api)" in stderr


def test_a_nas_that_is_down_is_named(front: FrontEnd) -> None:
    front.start("6.10")
    front.cloud.fail("nas1", m.MapZvol, Unreachable("no agent called nas1 is connected to the broker"))

    run = front.run(transfer_call("6.10", "ln", "vm:nas1/tank/one-4", on("host01", 1), "0", "102"))

    assert run == ("", "cannot link nas1/tank/one-4: no agent called nas1 is connected to the broker\n", 1)
