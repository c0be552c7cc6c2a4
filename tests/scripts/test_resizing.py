"""resize: disks that grow, wherever their VM is, and those that cannot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import Volume
from tests.support.oned import Oned, serving
from tests.support.recorded import transfer_call

from onelun.driver.api import Api
from onelun.errors import Busy, Unreachable
from onelun.model import Kind, Owner
from onelun.rpc import message as m

MIB = 1 << 20
VM = "/var/lib/one//datastores/103/0"
MODERN = ("5.12", "6.0", "6.6", "6.10", "7.5")


@pytest.fixture
def front(front: FrontEnd) -> FrontEnd:
    for image_id in (3, 4):
        owner = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=image_id, regtime=1)
        front.cloud.volumes["nas1", "tank", f"one-{image_id}"] = Volume(64 * MIB, owner)
    return front


@pytest.fixture
def oned(front: FrontEnd, tmp_path: Path) -> Iterator[Oned]:
    with serving(tmp_path) as (server, auth):
        front.api = Api(server.url, auth)
        server.vm("vm-0.lcm-62")
        yield server


def ok(run: tuple[str, str, int]) -> None:
    assert (run[0], run[2]) == ("", 0), run[1]


def refused(run: tuple[str, str, int]) -> str:
    stdout, stderr, status = run
    assert (stdout, status, stderr.count("\n")) == ("", 1, 1)
    return stderr


def test_the_recorded_resize_grows_a_persistent_disk_and_may_be_repeated(front: FrontEnd, oned: Oned) -> None:
    front.start()
    ok(front.run(transfer_call("7.5", "ln", "vm:nas1/tank/one-4", f"host01:{VM}/disk.1", "0", "102")))

    for _ in range(2):
        ok(front.run(transfer_call("7.5", "resize")))

    assert front.cloud.volume("nas1/tank/one-4").size == 128 * MIB
    assert front.cloud.requests(m.ResizeZvol)[0].cloud == CLOUD


@pytest.mark.parametrize("release", MODERN)
def test_a_clone_grows_by_arguments_and_placements_alone(front: FrontEnd, release: str) -> None:
    front.start(release)
    ok(front.run(transfer_call(release, "clone", "vm:nas1/tank/one-3", f"host01:{VM}/disk.0", "0", "102")))

    ok(front.run(transfer_call(release, "resize", f"host01:{VM}/disk.0", "96", "0", "102")))

    assert front.cloud.volume("nas1/tank/one-3-0-0").size == 96 * MIB
    assert front.cloud.volume("nas1/tank/one-3").size == 64 * MIB


def test_a_disk_of_an_undeployed_vm_grows_where_no_host_has_it(front: FrontEnd, oned: Oned) -> None:
    front.start()

    ok(front.run(transfer_call("7.5", "resize", f"vm:{VM}/disk.1", "100", "0", "102")))

    assert front.cloud.volume("nas1/tank/one-4").size == 100 * MIB


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        ((f"host01:{VM}/disk.1", "32"), "it cannot be shrunk to"),
        ((f"host01:{VM}/disk.1", "0"), "the size is 0 MB: it must be between 1 MB and 1 PiB"),
        ((f"host01:{VM}/disk.1", "-5"), "the size is '-5', which is no number of MB"),
        ((f"host01:{VM}/disk.1", "1e3"), "the size is '1e3', which is no number of MB"),
        ((f"host01:{VM}/disk.1", "9" * 12), "it must be between 1 MB and 1 PiB"),
        ((f"host01:{VM}/disk.1",), "the arguments should be: resize HOST:DIR/disk.N SIZE_MB VM DATASTORE"),
        ((f"host01:{VM}", "128"), "is a directory, where a disk.N was expected"),
        ((f"host09:{VM}/disk.1", "128"), "nobody serves the host 'host09'"),
        ((f"host01:{VM}/disk.77", "128"), "no volume of onelun is known behind disk 77 of VM 0"),
        (("host01:/etc/0/disk.1", "128"), "is outside the datastore directory"),
    ],
)
def test_what_cannot_be_is_one_sentence_and_changes_nothing(
    front: FrontEnd, oned: Oned, argv: tuple[str, ...], reason: str
) -> None:
    front.start("6.10")

    stderr = refused(front.run(transfer_call("6.10", "resize", *argv, "0", "102")))

    assert stderr.startswith("cannot resize ")
    assert reason in stderr
    assert front.cloud.volume("nas1/tank/one-4").size == 64 * MIB


def test_a_running_vm_s_disk_that_cannot_grow_now_says_what_to_do(front: FrontEnd, oned: Oned) -> None:
    front.start("6.10")
    front.cloud.fail("nas1", m.ResizeZvol, *[Busy("one-4 is open on node1: power the VM off")] * 50)

    assert refused(front.run(transfer_call("6.10", "resize"))) == (
        "cannot resize disk.1 on host01: one-4 is open on node1: power the VM off\n"
    )


def test_a_nas_that_is_down_is_named(front: FrontEnd, oned: Oned) -> None:
    front.start("6.10")
    front.cloud.fail("nas1", m.ResizeZvol, Unreachable("no agent called nas1 is connected to the broker"))

    assert "no agent called nas1" in refused(front.run(transfer_call("6.10", "resize")))
