"""Operations on a VM's directory: what they make, what a repeat does, and what they refuse."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.requires import requires

from onelun import directory as module
from onelun.directory import LONGEST_PIECE, Directory, Found
from onelun.errors import Conflict, NotFound, OutOfSpace, Rejected

OURS = f"{os.geteuid()}:{os.getegid()}"
DEVICE = "/dev/onelun/nas1/tank/one-1-5-0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "datastores").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("root's")
    return tmp_path / "datastores"


@pytest.fixture
def place(root: Path) -> Directory:
    return Directory(str(root), OURS)


@pytest.fixture
def vm(root: Path) -> str:
    return f"{root}/103/5"


# What is made


def test_a_link_is_made_with_its_directory(place: Directory, vm: str) -> None:
    place.put_link(vm, "disk.0", DEVICE)

    assert os.readlink(f"{vm}/disk.0") == DEVICE
    assert stat.S_IMODE(os.stat(vm).st_mode) == 0o755


def test_double_and_trailing_slashes_mean_nothing(place: Directory, root: Path) -> None:
    place.put_link(f"/{root}//103///5/", "disk.0", DEVICE)

    assert os.readlink(root / "103/5/disk.0") == DEVICE


def test_a_link_is_turned_to_another_device(place: Directory, vm: str) -> None:
    place.put_link(vm, "disk.0", DEVICE)

    place.put_link(vm, "disk.0", f"{DEVICE}0")
    place.put_link(vm, "disk.0", f"{DEVICE}0")

    assert os.readlink(f"{vm}/disk.0") == f"{DEVICE}0"
    assert os.listdir(vm) == ["disk.0"]


def test_a_link_is_turned_at_once(place: Directory, vm: str) -> None:
    place.put_link(vm, "disk.0", "a")
    missing: list[str] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            if not os.path.islink(f"{vm}/disk.0"):
                missing.append("disk.0")

    watcher = threading.Thread(target=watch)
    watcher.start()
    for turn in range(300):
        place.put_link(vm, "disk.0", f"to-{turn}")
    done.set()
    watcher.join(60)

    assert missing == []


def test_a_file_appears_with_its_last_piece(place: Directory, vm: str) -> None:
    place.put_piece(vm, "deployment.0", b"one ", last=False)
    assert place.entries(vm) == []

    place.put_piece(vm, "deployment.0", b"two", offset=4, mode=0o600)

    assert place.entries(vm) == [Found("deployment.0", "file", 0o600, size=7)]
    assert place.read(vm, "deployment.0") == b"one two"


def test_a_repeated_piece_changes_nothing(place: Directory, vm: str) -> None:
    place.put_piece(vm, "disk.1", b"one ", last=False)
    place.put_piece(vm, "disk.1", b"one ", last=False)
    place.put_piece(vm, "disk.1", b"two", offset=4)
    place.put_piece(vm, "disk.1", b"two", offset=4)

    assert place.read(vm, "disk.1") == b"one two"
    assert os.listdir(vm) == ["disk.1"]


def test_a_piece_without_those_before_it_is_rejected(place: Directory, vm: str) -> None:
    with pytest.raises(Rejected, match="begin again at 0"):
        place.put_piece(vm, "disk.1", b"two", offset=4)

    assert not os.path.exists(f"{vm}/disk.1")


def test_an_interrupted_file_is_begun_again(place: Directory, vm: str) -> None:
    place.put_piece(vm, "disk.1", b"a long first try", last=False)

    place.put_piece(vm, "disk.1", b"short")

    assert place.read(vm, "disk.1") == b"short"


def test_a_file_is_read_piece_by_piece(place: Directory, vm: str) -> None:
    data = os.urandom(LONGEST_PIECE + 5)
    place.put_piece(vm, "disk.1", data[:LONGEST_PIECE], last=False)
    place.put_piece(vm, "disk.1", data[LONGEST_PIECE:], offset=LONGEST_PIECE)

    first = place.read(vm, "disk.1")
    second = place.read(vm, "disk.1", len(first))

    assert first + second == data
    assert place.read(vm, "disk.1", len(data)) == b""


def test_a_list_shows_directories_links_and_files(place: Directory, vm: str) -> None:
    place.put_directory(vm, "disk.0.snap", 0o750)
    place.put_link(vm, "disk.0.snap/disk.0.snap", ".")
    place.put_link(vm, "disk.0", DEVICE)
    place.put_piece(vm, "disk.1", b"iso")
    os.mkfifo(f"{vm}/pipe")

    assert place.entries(vm) == [
        Found("disk.0", "link", 0o777, target=DEVICE),
        Found("disk.0.snap", "dir", 0o750),
        Found("disk.0.snap/disk.0.snap", "link", 0o777, target="."),
        Found("disk.1", "file", 0o640, size=3),
    ]


def test_an_absent_directory_has_no_entries(place: Directory, vm: str) -> None:
    assert place.entries(vm) is None


def test_the_text_of_a_link_is_told(place: Directory, vm: str) -> None:
    assert place.link_text(vm, "disk.0") is None
    place.put_link(vm, "disk.0", DEVICE)
    place.put_piece(vm, "disk.1", b"iso")

    assert place.link_text(vm, "disk.0") == DEVICE
    assert place.link_text(vm, "disk.1") is None


# What is removed


def test_a_directory_goes_with_all_that_is_in_it(place: Directory, vm: str, root: Path) -> None:
    place.put_piece(vm, "a/b/c", b"x")
    place.put_link(vm, "disk.0", str(root.parent / "outside"))
    place.put_piece(f"{root}/103/50", "kept", b"x")

    place.remove(vm)
    place.remove(vm)

    assert os.listdir(root / "103") == ["50"]
    assert (root.parent / "outside" / "secret").exists()


def test_one_entry_goes_alone(place: Directory, vm: str) -> None:
    place.put_link(vm, "disk.0", DEVICE)
    place.put_link(vm, "disk.1", DEVICE)

    place.remove(vm, "disk.0")
    place.remove(vm, "disk.0")

    assert os.listdir(vm) == ["disk.1"]


def test_removing_below_an_absent_directory_succeeds(place: Directory, vm: str) -> None:
    place.remove(vm, "disk.0")
    place.remove(f"{vm}0")


# What is refused


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "103/5",
        "/etc/103/5",
        "{root}",
        "{root}/",
        "{root}/103",
        "{root}/103/",
        "{root}/one/5",
        "{root}/103/five",
        "{root}/103/\u0665",
        "{root}/103/..",
        "{root}/103/5/..",
        "{root}/103/5/../6",
        "{root}/../datastores/103/5",
        "{root}/103/./5",
        "{root}0/103/5",
        "{root}/103/5\n",
        "{root}/103/5\0",
        "{root}/103/5/\x1b",
        "{root}/103/5/\udcff",
        "{root}/103/5/" + "x/" * 2000,
    ],
)
def test_a_path_that_is_no_directory_of_a_vm_is_rejected(place: Directory, root: Path, path: str) -> None:
    path = path.replace("{root}", str(root))

    for refused in (
        lambda: place.entries(path),
        lambda: place.read(path, "x"),
        lambda: place.put_link(path, "x", "y"),
        lambda: place.put_piece(path, "x", b"y"),
        lambda: place.put_directory(path),
        lambda: place.remove(path),
        lambda: place.remove(path, "x"),
    ):
        with pytest.raises(Rejected):
            refused()
    assert os.listdir(root) == []


@pytest.mark.parametrize(
    "name", ["", "/", "..", "../6/disk.0", "a/../../6", "/etc/shadow", "a\nb", ".", "x" * 300, "x/" * 40]
)
def test_a_name_that_is_none_is_rejected(place: Directory, vm: str, name: str) -> None:
    os.makedirs(vm)

    with pytest.raises(Rejected):
        place.put_link(vm, name, "y")

    assert os.listdir(vm) == []


@pytest.mark.parametrize("text", ["", "x" * 5000, "a\nb", "a\0b"])
def test_a_text_that_no_link_can_have_is_rejected(place: Directory, vm: str, text: str) -> None:
    with pytest.raises(Rejected):
        place.put_link(vm, "disk.0", text)


@pytest.mark.parametrize("above", ["103", "103/5", "103/5/sub"])
def test_no_link_leads_outside(place: Directory, root: Path, vm: str, above: str) -> None:
    outside = root.parent / "outside"
    os.makedirs(os.path.dirname(root / above), exist_ok=True)
    os.symlink(outside, root / above)
    (outside / "5").mkdir()

    name = "sub/x" if above.endswith("sub") else "x"
    with pytest.raises(Rejected, match="link"):
        place.put_link(vm, name, "y")
    with pytest.raises(Rejected, match="link"):
        place.put_piece(vm, name, b"y")
    with pytest.raises(Rejected, match="link"):
        place.read(vm, name)

    assert sorted(os.listdir(outside)) == ["5", "secret"]


def test_a_relative_link_that_climbs_out_is_rejected(place: Directory, root: Path, vm: str) -> None:
    os.makedirs(vm)
    os.symlink("../../../outside", f"{vm}/sub")

    with pytest.raises(Rejected, match="link"):
        place.read(vm, "sub/secret")
    with pytest.raises(Rejected, match="link"):
        place.remove(vm, "sub/secret")

    assert (root.parent / "outside" / "secret").exists()


def test_a_directory_that_becomes_a_link_at_any_moment_never_leads_outside(
    place: Directory, root: Path, vm: str
) -> None:
    outside = root.parent / "outside"
    os.makedirs(f"{vm}/sub")
    done = threading.Event()

    def swap() -> None:
        for turn in count():
            if done.is_set():
                return
            with suppress(OSError):
                os.rename(f"{vm}/sub", f"{vm}/aside-{turn}")
                os.symlink(outside, f"{vm}/sub")
                os.unlink(f"{vm}/sub")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for turn in range(400):
            with suppress(Rejected, NotFound, Conflict):
                place.put_piece(vm, f"sub/{turn % 7}", b"x")
                place.remove(vm, f"sub/{turn % 7}")
    finally:
        done.set()
        swapper.join(60)

    assert os.listdir(outside) == ["secret"]


def test_a_link_is_not_read(place: Directory, root: Path, vm: str) -> None:
    place.put_link(vm, "disk.0", str(root.parent / "outside" / "secret"))

    with pytest.raises(Rejected, match="link"):
        place.read(vm, "disk.0")


def test_a_pipe_is_not_waited_for(place: Directory, vm: str) -> None:
    os.makedirs(vm)
    os.mkfifo(f"{vm}/pipe")

    with pytest.raises(Rejected, match="no file"):
        place.read(vm, "pipe")


def test_a_directory_is_not_read_as_a_file(place: Directory, vm: str) -> None:
    place.put_directory(vm, "sub")

    with pytest.raises(Rejected, match="no file"):
        place.read(vm, "sub")


def test_an_absent_file_is_not_found(place: Directory, vm: str) -> None:
    with pytest.raises(NotFound, match=r"5/disk\.1 does not exist"):
        place.read(vm, "disk.1")


def test_a_file_is_not_replaced_by_a_link(place: Directory, vm: str) -> None:
    place.put_piece(vm, "disk.0", b"a whole disk")

    with pytest.raises(Conflict, match=r"disk\.0 is no link"):
        place.put_link(vm, "disk.0", DEVICE)

    assert place.read(vm, "disk.0") == b"a whole disk"


def test_a_directory_is_not_replaced_by_a_file(place: Directory, vm: str) -> None:
    place.put_piece(vm, "disk.0/inner", b"x")

    with pytest.raises(Conflict):
        place.put_piece(vm, "disk.0", b"y")

    assert os.listdir(vm) == ["disk.0"]


def test_a_file_replaces_a_link_without_following_it(place: Directory, root: Path, vm: str) -> None:
    place.put_link(vm, "disk.1", str(root.parent / "outside" / "secret"))

    place.put_piece(vm, "disk.1", b"new")

    assert not os.path.islink(f"{vm}/disk.1")
    assert (root.parent / "outside" / "secret").read_text() == "root's"


def test_more_entries_than_a_message_holds_are_rejected(
    place: Directory, vm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_LIST", 3)
    for number in range(4):
        place.put_link(vm, f"disk.{number}", DEVICE)

    with pytest.raises(Rejected, match="more than 3"):
        place.entries(vm)


def test_a_piece_that_is_too_long_is_rejected(place: Directory, vm: str) -> None:
    with pytest.raises(Rejected):
        place.put_piece(vm, "x", b"x" * (LONGEST_PIECE + 1))
    with pytest.raises(Rejected):
        place.read(vm, "x", 0, LONGEST_PIECE + 1)
    with pytest.raises(Rejected):
        place.read(vm, "x", -1)


def test_an_absent_root_is_an_error_and_not_an_absent_directory(root: Path) -> None:
    place = Directory(f"{root}/none", OURS)

    with pytest.raises(Rejected, match="cannot open the datastore directory"):
        place.entries(f"{root}/none/103/5")


def test_a_user_that_does_not_exist_is_rejected(root: Path) -> None:
    with pytest.raises(Rejected, match="no user 'nobody-of-this-name'"):
        Directory(str(root), "nobody-of-this-name")


def test_the_disk_of_a_path_is_told_apart_from_its_directory(place: Directory, root: Path, vm: str) -> None:
    assert place.split(f"{root}//103/5/disk.0") == (vm, "disk.0")
    with pytest.raises(Rejected):
        place.split(vm)


@given(st.text(max_size=80))
def test_whatever_is_asked_nothing_appears_outside(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    above = tmp_path_factory.mktemp("any")
    (above / "root").mkdir()
    place = Directory(f"{above}/root", OURS)

    for path, name in ((f"{above}/root/1/{text}", "x"), (f"{above}/root/1/2", text), (text, "x")):
        with suppress(Rejected):
            place.put_piece(path, name, b"x")

    assert os.listdir(above) == ["root"]
    assert set(os.listdir(above / "root")) <= {"1"}


# As another user


@pytest.fixture
def foreign(root: Path) -> Iterator[Path]:
    """A datastore directory of user 1234 that nobody else may enter."""
    requires("root")
    os.chown(root, 1234, 1235)
    os.chmod(root, 0o700)
    for above in root.parents:
        if above == Path("/tmp"):
            break
        os.chmod(above, os.stat(above).st_mode | 0o111)
    return root


def test_everything_is_made_as_the_owner(foreign: Path) -> None:
    place = Directory(str(foreign), "1234:1235")

    place.put_link(f"{foreign}/103/5", "disk.0", DEVICE)
    place.put_piece(f"{foreign}/103/5", "disk.1", b"iso")

    for name in ("103", "103/5", "103/5/disk.0", "103/5/disk.1"):
        status = os.lstat(foreign / name)
        assert (status.st_uid, status.st_gid) == (1234, 1235), name
    assert place.read(f"{foreign}/103/5", "disk.1") == b"iso"


def test_the_owners_rights_are_the_limit(foreign: Path) -> None:
    place = Directory(str(foreign), "1234:1235")
    (foreign / "104").mkdir(mode=0o755)
    (foreign / "104" / "5").mkdir(mode=0o755)
    (foreign / "104" / "5" / "checkpoint").write_text("root's")
    os.chmod(foreign / "104" / "5" / "checkpoint", 0o600)

    with pytest.raises(Rejected, match="user 1234 may not"):
        place.put_link(f"{foreign}/104/5", "disk.0", DEVICE)
    with pytest.raises(Rejected, match="user 1234 may not"):
        place.read(f"{foreign}/104/5", "checkpoint")
    with pytest.raises(Rejected, match="user 1234 may not"):
        place.remove(f"{foreign}/104/5")


def test_the_thread_has_its_own_rights_back_after_success_and_failure(foreign: Path, tmp_path: Path) -> None:
    place = Directory(str(foreign), "1234:1235")
    place.put_link(f"{foreign}/103/5", "disk.0", DEVICE)
    with pytest.raises(NotFound):
        place.read(f"{foreign}/103/5", "none")

    (tmp_path / "ours").write_text("x")

    assert os.stat(tmp_path / "ours").st_uid == 0


def test_an_ordinary_user_makes_no_files_of_another(root: Path) -> None:
    requires("root")
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.setresuid(1234, 1234, 1234)
            Directory(str(root), "4321").entries(f"{root}/1/2")
        except Rejected as error:
            status = 0 if "only root or user 4321 may make files" in error.sentence else 2
        finally:
            os._exit(status)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_full_disk_is_out_of_space(place: Directory, vm: str, root: Path) -> None:
    requires("root")
    os.makedirs(vm)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", vm], check=True, timeout=30)
    try:
        with pytest.raises(OutOfSpace, match=r"disk\.1"):
            place.put_piece(vm, "disk.1", b"x" * 200_000)
        assert os.listdir(vm) == []
    finally:
        subprocess.run(["umount", vm], check=True, timeout=30)


def test_a_socket_in_the_directory_is_left_out_of_the_list(place: Directory, root: Path) -> None:
    os.makedirs(root / "1" / "2")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(root / "1" / "2", os.O_PATH)
        listening.bind(f"/proc/self/fd/{here}/monitor")
        os.close(here)

    assert place.entries(f"{root}/1/2") == []
