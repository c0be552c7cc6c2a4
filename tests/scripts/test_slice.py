"""An image's life in each release's words: made, linked to a VM, taken back, removed."""

from __future__ import annotations

import pytest
from tests.scripts.conftest import FrontEnd
from tests.support.recorded import RELEASES, Recorded, datastore_call, number, transfer_call

DISK = "/var/lib/one/datastores/103/0/disk.1"


def quiet(stderr: str, release: str) -> bool:
    """Whether stderr has nothing but what the release takes beside a success: lines of a log from 7.0 on."""
    lines = stderr.splitlines()
    return not lines or (number(release) >= (7, 0) and all(line.startswith("INFO: ") for line in lines))


@pytest.mark.parametrize("release", RELEASES)
def test_an_image_lives_its_life(front: FrontEnd, release: str) -> None:
    front.start(release)
    old = number(release) <= (5, 12)

    made = front.run(datastore_call(release, "mkfs"))
    linked = front.run(
        transfer_call(release, "ln", "vm:nas1/tank/one-9", f"host01:/var/lib/one/{DISK[12:]}", "0", "102")
    )
    link = front.cloud.link("node1", DISK)
    taken = front.run(transfer_call(release, "mvds", f"host01:{DISK}", "nas1/tank/one-9", "0", "102"))
    left = front.cloud.link("node1", DISK)
    removed = front.run(datastore_call(release, "rm", datastore_document("nas1/tank/one-9")))

    assert made[0] == ("nas1/tank/one-9 100\n" if old else "nas1/tank/one-9\n")
    assert link == "/dev/onelun/nas1/tank/one-9"
    assert left is None
    assert [run[0] for run in (linked, taken, removed)] == ["", "", ""]
    assert [run[2] for run in (made, linked, taken, removed)] == [0, 0, 0, 0]
    assert all(quiet(run[1], release) for run in (made, linked, taken, removed))
    assert front.cloud.names() == []


def datastore_document(source: str) -> str:
    from tests.support.recorded import document

    return document("mkfs", SOURCE=source)


def test_a_log_line_of_a_transfer_action_names_the_vm(front: FrontEnd) -> None:
    front.start("7.5")
    front.run(datastore_call("7.5", "mkfs"))

    _, stderr, _ = front.run(transfer_call("7.5", "ln", "vm:nas1/tank/one-9", f"host01:{DISK}", "0", "102"))

    assert stderr == "INFO: 0 ln: linked nas1/tank/one-9 as disk 1 on host01\n"


def test_a_call_without_arguments_says_what_it_wants(front: FrontEnd) -> None:
    front.start("7.5")

    stdout, stderr, status = front.run(Recorded("tm/ln", (), b""))

    assert (stdout, status) == ("", 1)
    assert stderr == (
        "cannot link: the arguments should be: FE:SOURCE HOST:DIR/disk.N, then VM and datastore from 3.6 on\n"
    )
