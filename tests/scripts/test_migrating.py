"""premigrate, postmigrate and failmigrate: a VM's disks on two hosts, as oned 7.5 was recorded to ask for it."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import Placement, Volume
from tests.support.oned import serving
from tests.support.recorded import RECORDINGS, Recorded, mapped, migration_call

from onelun.driver.api import Api
from onelun.errors import Busy, CommandFailed, NoReply, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc import message as m

VM = "/var/lib/one/datastores/103/0"
CONTEXT = b"context" * 1000
# host02 (node2) → host01 (node1), as it was recorded.
SOURCE, TARGET = "node2", "node1"
DISKS = {
    0: "nas1/tank/one-3-0-0",
    1: "nas1/tank/one-4",
    2: "nas2/tank/one-vm-0-2",
    3: "nas1/tank/one-vm-0-3",
    4: "nas1/tank/one-8",
    5: "nas1/tank/one-3-0-5",
}
# `local` (7.0 and later) hands on what it was called with and adds its own name: called by ssh it makes seven of it.
CHAINED = pytest.mark.parametrize("chained", [(), ("ssh",), ("ssh", "local")], ids=["own", "ssh", "local"])


@pytest.fixture
def front(front: FrontEnd) -> FrontEnd:
    """With the recorded VM on node2."""
    cloud = front.cloud
    for disk, name in DISKS.items():
        nas, pool, volume = name.split("/")
        own = Owner(kind=Kind.VOLATILE if "vm" in name else Kind.DISK, cloud=CLOUD, vm_id=0, disk_id=disk)
        owner = own if volume.count("-") > 1 else Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=int(volume[4:]))
        path = f"{VM}/disk.{disk}"
        cloud.volumes[nas, pool, volume] = Volume(1 << 20, owner, hosts={SOURCE: path}, readonly=disk == 4)
        cloud.placements[0, disk] = Placement((nas, pool, volume), path, SOURCE)
        link = m.Entry(name=f"disk.{disk}", kind="link", target=f"/dev/onelun/{name}")
        cloud.directories[SOURCE].setdefault(VM, {})[link.name] = link
    cloud.directories[SOURCE][VM]["disk.6"] = m.Entry(name="disk.6", kind="file", size=len(CONTEXT))
    cloud.contents[SOURCE, VM, "disk.6"] = CONTEXT
    return front


def share(front: FrontEnd) -> None:
    """Let both hosts have the one directory."""
    front.cloud.directories[TARGET] = front.cloud.directories[SOURCE]


def hosts(front: FrontEnd) -> set[tuple[str, ...]]:
    """On which hosts the VM's disks are."""
    volumes = [front.cloud.volume(name) for name in DISKS.values()]
    return {tuple(sorted(volume.hosts)) for volume in volumes if volume is not None}


def there(front: FrontEnd, host: str) -> list[str]:
    """What the VM's directory has on the host."""
    return sorted(front.cloud.directories[host].get(VM, {}))


def ok(run: tuple[str, str, int]) -> None:
    assert (run[0], run[2]) == ("", 0), run[1]


def failed(run: tuple[str, str, int]) -> str:
    stdout, stderr, status = run
    told = [line for line in stderr.splitlines() if not line.startswith("INFO: 0 ")]
    assert (stdout, status, len(told)) == ("", 1, 1), stderr
    return told[0]


ALL = [*(f"disk.{number}" for number in range(7))]


@pytest.mark.parametrize("end", ["postmigrate", "failmigrate"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_vm_has_its_disks_on_both_hosts_until_the_migration_ends(front: FrontEnd, end: str, shared: bool) -> None:
    if shared:
        share(front)
    front.start()
    call = migration_call(end)
    if end == "failmigrate":
        call = call._replace(argv=("host02", "host01", *call.argv[2:]))
    left, stays = (SOURCE, TARGET) if end == "postmigrate" else (TARGET, SOURCE)

    for _ in range(2):
        ok(front.run(migration_call("premigrate")))
    during = hosts(front), there(front, TARGET), front.cloud.link(TARGET, f"{VM}/disk.2")
    for _ in range(2):
        ok(front.run(call))

    assert during == ({(TARGET, SOURCE)}, ALL, "/dev/onelun/nas2/tank/one-vm-0-2")
    assert hosts(front) == {(stays,)}
    assert {placement.host for placement in front.cloud.placements.values()} == {stays}
    assert there(front, stays) == ALL
    assert there(front, left) == (ALL if shared else [])
    assert front.cloud.contents[SOURCE if shared else stays, VM, "disk.6"] == CONTEXT


def test_a_cd_rom_is_given_to_be_read_only(front: FrontEnd) -> None:
    front.start()

    ok(front.run(migration_call("premigrate")))

    asked = front.cloud.requests(m.MapZvol)
    assert {request.disk for request in asked if request.readonly} == {4}
    assert {request.beside for request in asked} == {SOURCE}


@CHAINED
def test_a_premigrate_that_fails_leaves_the_host_without_any_disk(front: FrontEnd, chained: tuple[str, ...]) -> None:
    front.cloud.fail("nas2", m.MapZvol, CommandFailed("no route to the portal"))
    front.start()

    sentence = failed(front.run(migration_call("premigrate", *chained)))

    assert sentence == "cannot prepare a live migration from host02: no route to the portal"
    assert hosts(front) == {(SOURCE,)}
    assert {placement.host for placement in front.cloud.placements.values()} == {SOURCE}
    assert there(front, SOURCE) == ALL
    if not chained:
        assert there(front, TARGET) == []
    ok(front.run(migration_call("premigrate", *chained)))
    assert hosts(front) == {(TARGET, SOURCE)}


def test_a_premigrate_that_fails_leaves_a_shared_directory_as_it_is(front: FrontEnd) -> None:
    share(front)
    front.cloud.fail("nas2", m.MapZvol, NoReply("node1 did not answer"))
    front.start()

    failed(front.run(migration_call("premigrate")))

    assert (hosts(front), there(front, SOURCE)) == ({(SOURCE,)}, ALL)


@pytest.mark.parametrize("shared", [True, False])
def test_the_host_with_the_vm_has_its_link_again_when_the_other_dropped_it(front: FrontEnd, shared: bool) -> None:
    if shared:
        share(front)
    front.start()
    ok(front.run(migration_call("premigrate")))
    front.cloud.volume(DISKS[0]).hosts.pop(SOURCE)
    del front.cloud.directories[SOURCE][VM]["disk.0"]

    ok(front.run(migration_call("postmigrate")))

    assert (hosts(front), there(front, TARGET)) == ({(TARGET,)}, ALL)


def test_what_a_premigrate_left_to_look_by_goes_with_the_next(front: FrontEnd) -> None:
    front.start()
    front.cloud.fail(SOURCE, m.RemoveEntry, Unreachable("node2 did not take remove_entry within 3 s"))
    failed(front.run(migration_call("premigrate")))
    assert len(there(front, SOURCE)) == len(ALL) + 1

    ok(front.run(migration_call("premigrate")))

    assert there(front, SOURCE) == there(front, TARGET) == ALL


@CHAINED
@pytest.mark.parametrize("end", ["premigrate", "postmigrate", "failmigrate"])
def test_whoever_calls_ours_keeps_the_directory_to_itself(front: FrontEnd, end: str, chained: tuple[str, ...]) -> None:
    front.start()
    ok(front.run(migration_call("premigrate", *chained)))
    front.cloud.asked.clear()

    ok(front.run(migration_call(end, *chained)))

    touched = [r for kind in (m.ListDir, m.PutEntry, m.ReadFile, m.RemoveEntry) for r in front.cloud.requests(kind)]
    assert bool(touched) == (not chained)
    assert all(request.keep_link for request in front.cloud.requests(m.UnmapZvol))


def test_ours_is_called_by_ssh_and_again_by_what_ssh_called(front: FrontEnd) -> None:
    front.start()

    for name in ("premigrate", "postmigrate"):
        for chained in (("ssh",), ("ssh", "local")):
            ok(front.run(migration_call(name, *chained)))

    assert hosts(front) == {(TARGET,)}


def test_disks_of_other_drivers_are_not_ours(front: FrontEnd) -> None:
    text = mapped((RECORDINGS / "tm.premigrate.stdin.xml").read_text())
    disks = re.findall("<DISK>.*?</DISK>", text)
    for theirs in disks[2:4]:
        text = text.replace(theirs, theirs.replace("<TM_MAD><![CDATA[onelun]]>", "<TM_MAD><![CDATA[ssh]]>"))
    front.start()

    ok(front.run(migration_call("premigrate", "ssh", text=text)))

    assert {request.disk for request in front.cloud.requests(m.MapZvol)} == {0, 1, 4, 5}


@pytest.mark.parametrize("end", ["postmigrate", "failmigrate"])
def test_one_disk_that_cannot_be_ended_leaves_none_of_the_others(front: FrontEnd, end: str) -> None:
    front.start()
    ok(front.run(migration_call("premigrate")))
    front.cloud.fail("nas2", m.UnmapZvol, *[Busy("one-vm-0-2 is open on its host")] * 99)
    call = migration_call(end)._replace(argv=migration_call("premigrate").argv)

    sentence = failed(front.run(call))

    assert sentence.endswith("a live migration from host02: one-vm-0-2 is open on its host")
    left, stays = (SOURCE, TARGET) if end == "postmigrate" else (TARGET, SOURCE)
    assert [name for name in DISKS.values() if left in front.cloud.volume(name).hosts] == ["nas2/tank/one-vm-0-2"]
    assert there(front, left) == ALL
    front.cloud.failures.clear()
    ok(front.run(call))
    assert (hosts(front), there(front, left)) == ({(stays,)}, [])


def test_a_release_that_sends_no_document_has_oned_asked(front: FrontEnd, tmp_path: Path) -> None:
    with serving(tmp_path) as (server, auth):
        front.api = Api(server.url, auth)
        server.documents["vm", 0] = mapped((RECORDINGS / "tm.premigrate.stdin.xml").read_text())
        front.start("5.4")

        ok(front.run(migration_call("premigrate")._replace(stdin=b"")))

    assert hosts(front) == {(TARGET, SOURCE)}


def test_an_action_that_is_given_up_leaves_the_host_without_any_disk(front: FrontEnd) -> None:
    front.cloud.fail("nas2", m.MapZvol, *[Busy("one-vm-0-2 is busy")] * 99)
    front.start()
    process = front.begin(migration_call("premigrate"))
    assert process.stdin is not None
    process.stdin.write(migration_call("premigrate").stdin)
    process.stdin.close()
    until = time.monotonic() + 60
    while not any(request.disk == 2 for request in front.cloud.requests(m.MapZvol)):
        assert time.monotonic() < until
        time.sleep(0.01)

    process.terminate()

    assert process.wait(60) == 1
    for stream in (process.stdout, process.stderr):
        assert stream is not None
        stream.close()
    assert (hosts(front), there(front, TARGET)) == ({(SOURCE,)}, [])


def test_a_host_that_does_not_answer_when_the_vm_has_left_it_is_fenced(front: FrontEnd) -> None:
    front.start()
    ok(front.run(migration_call("premigrate")))
    front.cloud.dead.add(SOURCE)

    ok(front.run(migration_call("postmigrate")))

    assert hosts(front) == {(TARGET,)}


@pytest.mark.parametrize(
    ("argv", "text", "sentence"),
    [
        (("host02", "host01"), None, "the arguments should be: premigrate SOURCE_HOST HOST DIRECTORY VM DATASTORE"),
        (("host02", "host01", VM, "1", "103"), None, "is of VM 0, and the call is for VM 1"),
        (("host02", "host01", f"{VM}/disk.0", "0", "103"), None, "is a disk, where a VM's directory was expected"),
        (("host02", "host09", VM, "0", "103"), None, "nobody serves the host 'host09'"),
        (("host02", "host01", "/etc/0", "0", "103"), None, "/etc/0"),
        (None, "", "nothing came on stdin"),
        (None, "<VM><ID>7</ID><STATE>3</STATE><LCM_STATE>4</LCM_STATE></VM>", "the document is of VM 7"),
        (None, "<VMS/>", "is 'VMS', not VM"),
    ],
)
def test_what_cannot_be_meant_is_told_and_changes_nothing(
    front: FrontEnd, argv: tuple[str, ...] | None, text: str | None, sentence: str
) -> None:
    call = migration_call("premigrate", text=text)
    front.start()

    told = failed(front.run(Recorded(call.name, argv or call.argv, call.stdin)))

    assert sentence in told
    assert front.cloud.asked == []
