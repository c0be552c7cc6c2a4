"""clone of a datastore from elsewhere: another pool, another NAS, a datastore of files; with real targets and qemu-img."""

from __future__ import annotations

import base64
import hashlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scripts.conftest import CLOUD, FrontEnd
from tests.support.fake_nas import GIB, Volume
from tests.support.images import backed, converted
from tests.support.recorded import Recorded, datastore_call, number
from tests.support.requires import requires
from tests.support.tgt import PrivateTgtd, free_port
from tests.support.tgt_cloud import TgtCloud

from onelun.driver import importing
from onelun.errors import Conflict, NoReply, NotFound, Unreachable
from onelun.model import Kind, Owner, Portal
from onelun.rpc import message as m

MIB = 1 << 20
SIZE = 6 * MIB + MIB // 2
MADE = "nas1/tank/one-13"
SINCE_5 = ("5.12", "6.0", "6.6", "6.10", "7.5")


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
def front(front: FrontEnd, tgtd: tuple[PrivateTgtd, int], tmp_path: Path) -> FrontEnd:
    (tmp_path / "nas").mkdir()
    front.cloud = TgtCloud(tmp_path / "nas", *tgtd)
    front.cloud.free["nas1", "other"] = front.cloud.free["nas3", "tank"] = 100 * GIB
    front.settings["datastores"] = str(front.datastores)
    return front


def content() -> bytes:
    """Some data, some holes, and an end that is no whole MB."""
    noise = random.Random(7).randbytes(MIB)
    return noise + bytes(4 * MIB) + noise[: MIB // 2] + bytes(MIB)


def image(front: FrontEnd, source: str) -> None:
    owner = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=3, regtime=1)
    front.cloud.volumes[tuple(source.split("/"))] = Volume(SIZE, owner)
    front.cloud.file(source).write_bytes(content())


def call(path: str, release: str = "7.5", **elements: str) -> Recorded:
    return datastore_call(release, "clone", PATH=path, **elements)


def refused(run: tuple[str, str, int]) -> str:
    stdout, stderr, status = run
    assert (stdout, status, stderr.count("\n")) == ("", 1, 1)
    assert stderr.startswith("cannot clone into image 13: ")
    return stderr


def only(front: FrontEnd, source: str) -> None:
    """Only the source is left: no volume, no offer, no file."""
    assert front.cloud.names() == [source]
    assert front.cloud.imports == {}
    assert os.listdir(front.cloud.directory) == [source.replace("/", "-")]


@pytest.mark.parametrize("release", SINCE_5)
def test_an_image_of_another_pool_is_copied(front: FrontEnd, release: str) -> None:
    image(front, "nas1/other/one-3")
    front.start(release)

    stdout, stderr, status = front.run(call("nas1/other/one-3", release))

    assert (stdout, status) == (f"{MADE} {'64' if number(release) <= (5, 12) else 'raw'}\n", 0), stderr
    assert front.cloud.file(MADE).read_bytes() == content()
    assert front.cloud.volume(MADE).owner == Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=13, regtime=1795245258)
    assert front.cloud.imports == {}


def test_an_image_of_another_nas_is_copied_and_a_repeat_copies_it_again(front: FrontEnd) -> None:
    image(front, "nas2/tank/one-3")
    front.start()
    recorded = call("nas2/tank/one-3")
    only_nas1 = recorded._replace(stdin=_pools(recorded.stdin, "nas1/tank"))

    runs = [front.run(only_nas1) for _ in range(2)]

    assert [(stdout, status) for stdout, _, status in runs] == [(f"{MADE} raw\n", 0)] * 2, runs
    assert front.cloud.file(MADE).read_bytes() == content()
    assert front.cloud.imports == {}
    assert front.cloud.requests(m.CloneZvol) == []


def _pools(encoded: bytes, pools: str) -> bytes:
    return base64.b64encode(base64.b64decode(encoded).replace(b"nas1/tank nas2/tank", pools.encode()))


def test_in_one_pool_the_storage_clones(front: FrontEnd) -> None:
    image(front, "nas2/tank/one-3")
    front.start()

    stdout, _, status = front.run(call("nas2/tank/one-3"))

    assert (stdout, status) == ("nas2/tank/one-13 raw\n", 0)
    assert front.cloud.requests(m.ReadZvol) == []


def test_an_image_of_a_pool_in_maintenance_is_copied_to_another_pool(front: FrontEnd) -> None:
    image(front, "nas2/tank/one-3")
    front.cloud.maintenance["nas2", "tank"] = "pool tank is in maintenance: nothing new is placed there"
    front.start()

    stdout, _, status = front.run(call("nas2/tank/one-3"))

    assert (stdout, status) == (f"{MADE} raw\n", 0)
    assert front.cloud.file(MADE).read_bytes() == content()


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_an_image_of_a_datastore_of_files_is_copied(front: FrontEnd, format_: str) -> None:
    directory = front.datastores / "1"
    directory.mkdir()
    (directory / "disk.raw").write_bytes(content())
    path = converted(directory / "disk.raw", format_)
    front.start()

    stdout, stderr, status = front.run(call(str(path), SIZE="7"))

    assert (stdout, status) == (f"{MADE} raw\n", 0), stderr
    assert front.cloud.file(MADE).read_bytes() == content()


def test_a_file_that_is_in_no_datastore_is_refused(front: FrontEnd, tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.raw"
    path.write_bytes(content())
    (front.datastores / "1").mkdir()
    (front.datastores / "1" / "link").symlink_to("/etc/shadow")
    front.start("6.10")

    for hostile in (path, front.datastores / "1" / "link", "/etc/shadow"):
        assert "from which no image may be registered" in refused(front.run(call(str(hostile), "6.10")))
    assert front.cloud.asked == []


def test_a_file_that_names_another_file_is_refused(front: FrontEnd) -> None:
    (front.datastores / "1").mkdir()
    disk = front.datastores / "1" / "disk.raw"
    disk.write_bytes(content())
    front.start("6.10")

    assert "the qcow2 image has a backing file" in refused(front.run(call(str(backed(disk)), "6.10")))
    assert front.cloud.asked == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("nas1/other/one-77", "there is no volume one-77 in pool other to clone"),
        ("nas9/tank/one-3", "nobody serves nas9"),
        ("onelun/one-3", "'onelun/one-3' is no SOURCE of onelun"),
        ("", "'' is no SOURCE of onelun"),
        ("nas1/../one-3", "is no name of a pool"),
    ],
)
def test_a_source_that_cannot_be_is_one_sentence(front: FrontEnd, path: str, reason: str) -> None:
    front.start("6.10")

    assert reason in refused(front.run(call(path, "6.10")))
    assert front.cloud.nothing_left()


def test_a_source_that_is_being_written_is_told(front: FrontEnd) -> None:
    image(front, "nas1/other/one-3")
    front.cloud.fail("nas1", m.ReadZvol, Conflict("one-3 is mapped to node1 for writing"))
    front.start("6.10")

    assert "one-3 is mapped to node1 for writing" in refused(front.run(call("nas1/other/one-3", "6.10")))
    only(front, "nas1/other/one-3")


def test_pools_without_room_let_go_of_what_was_to_be_read(front: FrontEnd) -> None:
    image(front, "nas1/other/one-3")
    for nas in ("nas1", "nas2"):
        front.cloud.free[nas, "tank"] = MIB
    front.start("6.10")

    assert "0.0 GiB are needed" in refused(front.run(call("nas1/other/one-3", "6.10")))
    only(front, "nas1/other/one-3")


@pytest.mark.parametrize(
    ("kind", "failure"),
    [(m.ImportZvol, Unreachable("nobody serves nas1")), (m.FinishImport, NoReply("nas1 did not answer"))],
)
def test_a_copy_that_fails_leaves_nothing(
    front: FrontEnd, kind: type[m.Request], failure: Unreachable | NoReply
) -> None:
    image(front, "nas1/other/one-3")
    front.cloud.fail("nas1", kind, failure)
    front.start("6.10")

    assert failure.sentence in refused(front.run(call("nas1/other/one-3", "6.10")))
    only(front, "nas1/other/one-3")


def test_a_copy_whose_source_is_lost_ends_with_an_error(front: FrontEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    image(front, "nas1/other/one-3")
    front.cloud.lease_s = 0.3
    front.start("6.10")
    slow(front, monkeypatch)

    async def ended(*_: object) -> None:
        raise NotFound("the import has ended: nobody renewed it in time")

    monkeypatch.setattr(front.cloud, "_renew_import", ended)

    assert "the import has ended" in refused(front.run(call("nas1/other/one-3", "6.10")))
    only(front, "nas1/other/one-3")


def test_a_copy_that_oned_stops_leaves_nothing(front: FrontEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    image(front, "nas1/other/one-3")
    front.start("6.10")
    slow(front, monkeypatch)

    with front.begin(call("nas1/other/one-3", "6.10")) as process:
        process.stdin.write(call("nas1/other/one-3", "6.10").stdin)
        process.stdin.close()
        until = time.monotonic() + 60
        while len(front.cloud.imports) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        offered = len(front.cloud.imports)
        process.send_signal(signal.SIGTERM)
        process.wait(60)

    assert offered == 2
    assert process.returncode != 0
    only(front, "nas1/other/one-3")


def exported(front: FrontEnd, release: str = "7.5", source: str = "nas1/other/one-3") -> Recorded:
    recorded = datastore_call(release, "rm", SOURCE=source)
    return recorded._replace(name="datastore/export")


@pytest.mark.parametrize("release", SINCE_5)
def test_an_image_is_exported_as_a_file_for_a_marketplace(front: FrontEnd, tmp_path: Path, release: str) -> None:
    image(front, "nas1/other/one-3")
    front.start(release)

    stdout, stderr, status = front.run(exported(front, release))

    assert status == 0, stderr
    told = dict(re.findall(r"<(\w+)>([^<]*)</\1>", stdout))
    path = Path(told["IMPORT_SOURCE"])
    assert stdout.startswith("<IMPORT_INFO>")
    assert stdout.count("\n") == 1
    assert (told["SIZE"], told["FORMAT"], told["DISPOSE"]) == ("7", "qcow2", "YES")
    assert told["MD5"] == hashlib.md5(path.read_bytes()).hexdigest()
    raw = tmp_path / "raw"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(raw)], check=True)
    assert raw.read_bytes() == content()
    only(front, "nas1/other/one-3")


def test_an_export_that_fails_leaves_no_file_and_an_old_one_goes(front: FrontEnd, tmp_path: Path) -> None:
    image(front, "nas1/other/one-3")
    left = tmp_path / "onelun-export-left.qcow2"
    left.touch()
    os.utime(left, (0, 0))
    front.start("6.10")
    (front.cloud.directory / "nas1-other-one-3").write_bytes(b"")
    front.cloud.exporters["nas1"].portal = Portal("127.0.0.1", 1)

    stdout, stderr, status = front.run(exported(front, "6.10"))

    assert (stdout, status) == ("", 1)
    assert "cannot export the image: the front-end cannot reach the iSCSI portal 127.0.0.1:1 of nas1" in stderr
    assert list(tmp_path.glob("onelun-export-*")) == []
    only(front, "nas1/other/one-3")


@pytest.mark.parametrize("source", ["", "nas1/other/one-77", "onelun/one-3"])
def test_what_cannot_be_exported_is_one_sentence(front: FrontEnd, tmp_path: Path, source: str) -> None:
    front.start("6.10")

    stdout, stderr, status = front.run(exported(front, "6.10", source))

    assert (stdout, status, stderr.count("\n")) == ("", 1, 1)
    assert list(tmp_path.glob("onelun-export-*")) == []


def slow(front: FrontEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have qemu-img begin only after some seconds."""
    waiting = ("sh", "-c", 'sleep 5; exec "$@"', "slow")
    monkeypatch.setattr(importing, "_LIMITS", (*importing._LIMITS, *waiting))
