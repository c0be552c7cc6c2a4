"""cp and stat with real files, a real web server and a real tgtd: what arrives is what was given, or nothing is left."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.scripts.conftest import FrontEnd
from tests.support.images import (
    backed,
    bomb,
    capacity_free_vmdk,
    child_vmdk,
    converted,
    corrupt,
    cut_off,
    directory,
    elsewhere,
    empty,
    encrypted,
    flat_vmdk,
    missing,
    pack,
    packed_twice,
    pipe,
    short,
    zip_bomb,
)
from tests.support.recorded import RELEASES, Recorded, datastore_call, document, error
from tests.support.requires import requires
from tests.support.tgt import PrivateTgtd, free_port
from tests.support.tgt_cloud import TgtCloud

from onelun.errors import NoReply, Unreachable
from onelun.rpc import message as m

MIB = 1 << 20
SOURCE = "nas1/tank/one-3"
FORMATS = ("raw", "qcow2", "vmdk", "vhdx")


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
    (tmp_path / "images").mkdir()
    front.cloud = TgtCloud(tmp_path / "nas", *tgtd)
    return front


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A raw disk of 6 MiB and a half: some data, some holes, and an end that is no whole MB."""
    path = tmp_path / "images" / "disk.raw"
    path.parent.mkdir(exist_ok=True)
    noise = random.Random(7).randbytes(MIB)
    with path.open("wb") as file:
        file.write(noise)
        file.seek(5 * MIB)
        file.write(noise[: MIB // 2])
        file.truncate(6 * MIB + MIB // 2)
    return path


def call(path: Path | str, release: str = "7.5", name: str = "cp", **template: str) -> Recorded:
    """cp or stat of `path`, from a datastore whose SAFE_DIRS hold the test's images."""
    text = document(name, PATH=str(path)) if name == "stat" else document(name, PATH=str(path), SIZE="7")
    text = text.replace("/var/tmp/images /tmp", str(Path(path).parent) if str(path).startswith("/") else "/nowhere")
    for key, value in template.items():
        text = text.replace("<TEMPLATE><DESCRIPTION>", f"<TEMPLATE><{key}>{value}</{key}><DESCRIPTION>")
    return datastore_call(release, name, text)


@pytest.mark.parametrize("format_", FORMATS)
def test_an_image_arrives_as_it_was_given(front: FrontEnd, disk: Path, format_: str) -> None:
    front.start()
    image = converted(disk, format_)

    stdout, stderr, status = front.run(call(image))

    assert (stdout, status) == (f"{SOURCE} raw\n", 0), stderr
    assert front.cloud.file(SOURCE).read_bytes() == disk.read_bytes()


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
@pytest.mark.parametrize("tool", ["gzip", "bzip2", "xz", "zstd"])
def test_a_compressed_image_is_unpacked(front: FrontEnd, disk: Path, tool: str, format_: str) -> None:
    requires(tool)
    front.start()
    image = pack(converted(disk, format_), tool)

    stdout, stderr, status = front.run(call(image))

    assert (stdout, status) == (f"{SOURCE} raw\n", 0), stderr
    assert front.cloud.file(SOURCE).read_bytes() == disk.read_bytes()


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_hears_of_an_image_in_its_words(front: FrontEnd, disk: Path, release: str) -> None:
    front.start(release)

    stdout, stderr, status = front.run(call(disk, release))

    assert stdout == (f"{SOURCE} 7\n" if release in ("3.4", "5.12") else f"{SOURCE} raw\n")
    assert status == 0
    assert stderr == (f"INFO: cp: registered {SOURCE} from a raw of 6815744 bytes\n" if release == "7.5" else "")


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_hears_of_a_failure_in_its_form(front: FrontEnd, disk: Path, release: str) -> None:
    front.start(release)
    wanted = hashlib.md5(b"something else").hexdigest()
    found = hashlib.md5(disk.read_bytes()).hexdigest()

    stdout, stderr, status = front.run(call(disk, release, MD5=wanted))

    sentence = f"cannot register image 3: the MD5 checksum of the file is {found}, not {wanted}"
    assert (stdout, stderr, status) == ("", error(release, sentence), 1)
    assert front.cloud.nothing_left()


def test_an_image_is_as_large_as_the_user_asked(front: FrontEnd, disk: Path) -> None:
    front.start()
    larger = Recorded(
        "datastore/cp", ("3",), base64.b64encode(base64.b64decode(call(disk).stdin).replace(b"<SIZE>7<", b"<SIZE>20<"))
    )

    _, stderr, status = front.run(larger)

    assert status == 0, stderr
    assert front.cloud.file(SOURCE).read_bytes() == disk.read_bytes().ljust(20 * MIB, b"\0")


@pytest.mark.parametrize("algorithm", ["MD5", "SHA1", "SHA256"])
def test_a_checksum_that_is_right_lets_the_image_in(front: FrontEnd, disk: Path, algorithm: str) -> None:
    front.start()
    image = pack(disk, "gzip")
    right = hashlib.new(algorithm.lower(), image.read_bytes()).hexdigest().upper()

    stdout, stderr, _ = front.run(call(image, **{algorithm: right}))

    assert stdout == f"{SOURCE} raw\n", stderr


@pytest.mark.parametrize("algorithm", ["SHA1", "SHA256"])
def test_a_checksum_that_differs_keeps_the_image_out(front: FrontEnd, disk: Path, algorithm: str) -> None:
    front.start()
    wrong = hashlib.new(algorithm.lower(), b"something else").hexdigest()

    stdout, stderr, status = front.run(call(disk, **{algorithm: wrong}))

    assert (stdout, status) == ("", 1)
    assert f"the {algorithm} checksum of the file is" in stderr
    assert front.cloud.asked == []


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (backed, "the qcow2 image has a backing file"),
        (elsewhere, "the qcow2 image has its data in another file"),
        (encrypted, "the qcow2 image is encrypted"),
        (bomb, "more than the limit of 1 GiB"),
        (zip_bomb, "the image is larger than the limit of 1 GiB"),
        (flat_vmdk, "VMDK with its content in other files"),
        (capacity_free_vmdk, "the vmdk image has its content in other files"),
        (child_vmdk, "the vmdk image has a parent file"),
        (corrupt, "the qcow2 image is damaged, or was cut off"),
        (short, "the qcow2 image is damaged, or was cut off"),
        (cut_off, "the image cannot be unpacked by xz"),
        (packed_twice, "the image is compressed twice"),
        (empty, "is empty"),
        (directory, "is a directory, not an image"),
        (pipe, "is no regular file"),
        (missing, "does not exist on the front-end"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_hostile_or_broken_image_is_refused(front: FrontEnd, disk: Path, make, reason: str) -> None:
    front.settings["max_image_gib"] = 1
    front.start("6.10")

    stdout, stderr, status = front.run(call(make(disk)))

    assert (stdout, status) == ("", 1)
    assert reason in stderr
    assert stderr.count("\n") == 1
    assert front.cloud.asked == []


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/etc/shadow", "/etc/shadow is in /etc, from which no image may be registered"),
        ("/etc/../etc/shadow", "is in /etc"),
        ("/proc/self/environ", "is in /proc"),
        ("/dev/null", "is in /dev"),
        ("file:///etc/passwd", "file:// is no kind of PATH"),
        ("ssh://host/image", "ssh:// is no kind of PATH"),
        ("image.raw", "is no absolute path"),
        ("http://127.0.0.1/a b", "PATH is no URL"),
    ],
)
def test_a_path_that_may_not_be_read_is_refused(front: FrontEnd, path: str, reason: str) -> None:
    front.start("6.10")
    text = document("cp", PATH=path).replace("/var/tmp/images /tmp", "/var/tmp/images")

    stdout, stderr, status = front.run(datastore_call("6.10", "cp", text))

    assert (stdout, status) == ("", 1)
    assert reason in stderr


def test_a_link_into_a_restricted_directory_is_refused(front: FrontEnd, disk: Path) -> None:
    front.start("6.10")
    link = disk.with_name("link")
    link.symlink_to("/etc/shadow")

    _, stderr, status = front.run(call(link))

    assert status == 1
    assert f"{link} (/etc/shadow) is in /etc" in stderr


def test_a_restricted_directory_of_the_datastore_is_kept(front: FrontEnd, disk: Path) -> None:
    front.start("6.10")
    text = document("cp", PATH=str(disk)).replace(
        "<SAFE_DIRS><![CDATA[/var/tmp/images /tmp]]></SAFE_DIRS>",
        f"<SAFE_DIRS>{disk.parent}/safe</SAFE_DIRS><RESTRICTED_DIRS>/</RESTRICTED_DIRS>",
    )

    _, stderr, status = front.run(datastore_call("6.10", "cp", text))

    assert status == 1
    assert "is in /, from which no image may be registered" in stderr


class Web(http.server.SimpleHTTPRequestHandler):
    """Serves files, redirects /to?URL there, and cuts what is below /cut off half-way."""

    def do_GET(self) -> None:
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", self.path.partition("?")[2])
            self.end_headers()
        elif self.path.startswith("/cut/"):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(b"only this")
        else:
            super().do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "images").mkdir(exist_ok=True)
    handler = functools.partial(Web, directory=str(tmp_path / "images"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("format_", ["raw", "qcow2"])
def test_an_image_comes_from_the_web(front: FrontEnd, disk: Path, web: str, format_: str) -> None:
    front.start()
    image = converted(disk, format_)

    stdout, stderr, status = front.run(call(f"{web}/to?{web}/{image.name}"))

    assert (stdout, status) == (f"{SOURCE} raw\n", 0), stderr
    assert front.cloud.file(SOURCE).read_bytes() == disk.read_bytes()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/missing", "404"),
        ("/cut/short", "the server closed the connection after 9 of 1000000 bytes"),
        ("/to?ftp://127.0.0.1/x", "which is not on the web"),
        ("/to?file:///etc/passwd", "is not allowed"),
    ],
)
def test_a_url_that_cannot_be_read_is_an_error(front: FrontEnd, web: str, path: str, reason: str) -> None:
    front.start("6.10")

    stdout, stderr, status = front.run(call(f"{web}{path}"))

    assert (stdout, status) == ("", 1)
    assert reason in stderr
    assert front.cloud.nothing_left()


def test_a_server_that_is_down_is_an_error(front: FrontEnd) -> None:
    front.start("6.10")

    _, stderr, status = front.run(call(f"http://127.0.0.1:{free_port()}/image"))

    assert status == 1
    assert "refused" in stderr.lower()


def test_a_portal_that_is_closed_is_named(front: FrontEnd, disk: Path) -> None:
    front.start("6.10")
    cloud = front.cloud
    cloud.exporter.portal = cloud.exporter.portal.__class__("127.0.0.1", free_port())

    _, stderr, status = front.run(call(disk))

    assert status == 1
    assert f"cannot reach the iSCSI portal 127.0.0.1:{cloud.exporter.portal.port} of nas1" in stderr
    assert cloud.nothing_left()


def test_an_import_that_cannot_be_finished_leaves_nothing(front: FrontEnd, disk: Path) -> None:
    front.start("6.10")
    front.cloud.fail("nas1", m.FinishImport, NoReply("nas1 took it and did not answer"))

    _, stderr, status = front.run(call(disk))

    assert (stderr, status) == ("cannot register image 3: nas1 took it and did not answer\n", 1)
    assert front.cloud.nothing_left()
    assert front.cloud.requests(m.DelZvol), "an import whose end is unknown may have become an image"


def test_an_import_is_finished_when_the_nas_is_back(front: FrontEnd, disk: Path) -> None:
    front.start("6.10")
    front.cloud.fail("nas1", m.FinishImport, *[Unreachable("no agent called nas1 is connected to the broker")] * 3)

    stdout, stderr, status = front.run(call(disk))

    assert (stdout, status) == (f"{SOURCE} raw\n", 0), stderr
    assert front.cloud.file(SOURCE).read_bytes() == disk.read_bytes()


def test_an_import_whose_nas_stays_away_is_given_up_with_its_lease(front: FrontEnd, disk: Path) -> None:
    front.start("6.10")
    front.cloud.lease_s = 1.0
    front.cloud.fail("nas1", m.FinishImport, *[Unreachable("nobody serves nas1")] * 50)

    _, stderr, status = front.run(call(disk))

    assert (stderr, status) == ("cannot register image 3: nobody serves nas1\n", 1)
    assert len(front.cloud.requests(m.FinishImport)) > 1
    assert front.cloud.nothing_left()


def test_a_lease_that_is_lost_ends_the_import(front: FrontEnd, tmp_path: Path) -> None:
    front.start("6.10")
    front.cloud.lease_s = 0.3
    front.cloud.fail("nas1", m.RenewImport, *[Unreachable("nobody serves nas1")] * 20)
    image = tmp_path / "images" / "large.raw"
    with image.open("wb") as file:
        for _ in range(512):
            file.write(random.randbytes(MIB))

    _, stderr, status = front.run(call(image))

    assert (stderr, status) == ("cannot register image 3: nobody serves nas1\n", 1)
    assert front.cloud.nothing_left()


def test_a_stopped_cp_leaves_nothing(front: FrontEnd, tmp_path: Path) -> None:
    front.start("6.10")
    image = tmp_path / "images" / "large.raw"
    with image.open("wb") as file:
        for _ in range(512):
            file.write(random.randbytes(MIB))
    request = call(image)

    with front.begin(request) as process:
        assert process.stdin is not None
        process.stdin.write(request.stdin)
        process.stdin.close()
        wait_for(lambda: front.cloud.imports)
        process.send_signal(signal.SIGTERM)
        stderr = process.stderr.read().decode()
        status = process.wait(60)

    assert (stderr, status) == ("cannot register image 3: it was stopped, and what it had begun was undone\n", 1)
    assert front.cloud.nothing_left()


def test_an_import_that_is_begun_again_cuts_off_who_still_writes(front: FrontEnd, tmp_path: Path) -> None:
    front.finish_s = 0.0
    front.start("6.10")
    image = tmp_path / "images" / "large.raw"
    with image.open("wb") as file:
        for _ in range(256):
            file.write(random.randbytes(MIB))
    request = call(image)

    with front.begin(request) as process:
        assert process.stdin is not None
        process.stdin.write(request.stdin)
        process.stdin.close()
        process.stdin = None
        wait_for(lambda: front.cloud.imports)
        front.cloud.fail("nas1", m.AbortImport, *[Unreachable("the frontend was killed before it could ask")] * 2)
        front.stop()
        front.start("6.10")
        stdout, stderr = process.communicate(timeout=300)

    ids = [id_ for _, asked, id_ in front.cloud.asked if isinstance(asked, m.ImportZvol)]
    assert (stdout, stderr) == (f"{SOURCE} raw\n".encode(), b"")
    assert len(set(ids)) == len(ids) == 2
    assert front.cloud.file(SOURCE).read_bytes() == image.read_bytes()


def wait_for(true) -> None:
    until = time.monotonic() + 60
    while not true():
        assert time.monotonic() < until, "it did not come to that within 60 s"
        time.sleep(0.01)


def test_an_image_that_is_written_to_meanwhile_is_not_registered(front: FrontEnd, tmp_path: Path) -> None:
    front.start("6.10")
    image = tmp_path / "images" / "large.raw"
    with image.open("wb") as file:
        for _ in range(256):
            file.write(random.randbytes(MIB))
    request = call(image)

    with front.begin(request) as process:
        assert process.stdin is not None
        process.stdin.write(request.stdin)
        process.stdin.close()
        wait_for(lambda: front.cloud.imports)
        with image.open("r+b") as file:
            file.write(b"another")
        stderr = process.stderr.read().decode()
        process.wait(60)

    assert stderr == "cannot register image 3: the image's file was changed while it was read: nothing was registered\n"
    assert front.cloud.nothing_left()


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("format_", FORMATS)
def test_stat_tells_the_size_of_the_disk_in_whole_mb(front: FrontEnd, disk: Path, format_: str, release: str) -> None:
    front.start(release)

    run = front.run(call(converted(disk, format_), release, "stat"))

    assert run == ("7\n", "", 0)
    assert front.cloud.asked == []


@pytest.mark.parametrize("format_", ["raw", "qcow2", "vmdk"])
@pytest.mark.parametrize("tool", ["gzip", "bzip2", "xz", "zstd"])
def test_stat_looks_into_a_compressed_image(front: FrontEnd, disk: Path, tool: str, format_: str) -> None:
    front.start()

    assert front.run(call(pack(converted(disk, format_), tool), name="stat")) == ("7\n", "", 0)


@pytest.mark.parametrize("format_", ["raw", "qcow2", "vmdk"])
def test_stat_reads_the_beginning_of_a_url(front: FrontEnd, disk: Path, web: str, format_: str) -> None:
    front.start()

    assert front.run(call(f"{web}/{converted(disk, format_).name}", name="stat")) == ("7\n", "", 0)


def test_stat_of_what_is_not_there_is_an_error(front: FrontEnd, disk: Path) -> None:
    front.start("6.10")

    stdout, stderr, status = front.run(call(disk.with_name("missing"), "6.10", "stat"))

    assert (stdout, status) == ("", 1)
    assert stderr == f"cannot tell the image's size: {disk.with_name('missing')} does not exist on the front-end\n"


def test_a_staged_file_leaves_no_name(front: FrontEnd, disk: Path) -> None:
    staging = disk.parent.parent / "staging"
    staging.mkdir()
    front.settings["staging"] = str(staging)
    front.start()

    _, _, status = front.run(call(pack(disk, "xz")))

    assert status == 0
    assert list(staging.iterdir()) == []
