"""context and monitor: the rest of what a system datastore is asked."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

import pytest
from tests.scripts.conftest import FrontEnd
from tests.support.recorded import RELEASES, Recorded, system_monitor_call, transfer_call

VM = "/var/lib/one/datastores/103/0"
WHERE = "host01:/var/lib/one//datastores/103/0/disk.6"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "context.sh"
    path.write_text("ETH0_MAC='02:00:0a:00:00:01'\n")
    return path


def made(front: FrontEnd, tmp_path: Path) -> dict[str, bytes]:
    """What is on the CD that the host got, by its names."""
    entry = front.cloud.directories["node1"][VM]["disk.6"]
    assert entry.kind == "file"
    image = tmp_path / "cd.iso"
    image.write_bytes(front.cloud.contents["node1", VM, "disk.6"])
    assert image.read_bytes()[32769:32774] == b"CD001"
    assert image.read_bytes()[32808:32840].strip() == b"CONTEXT"
    out = tmp_path / "out"
    subprocess.run(
        ["xorriso", "-osirrox", "on", "-indev", image, "-extract", "/", out],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def ok(run: tuple[str, str, int]) -> None:
    assert (run[0], run[2]) == ("", 0), run[1]


def failed(run: tuple[str, str, int]) -> str:
    stdout, stderr, status = run
    assert (stdout, status, stderr.count("\n")) == ("", 1, 1)
    return stderr


@pytest.mark.parametrize("release", RELEASES)
def test_the_cd_has_the_files_under_their_names(front: FrontEnd, release: str, script: Path, tmp_path: Path) -> None:
    files = tmp_path / "files"
    (files / "sub").mkdir(parents=True)
    (files / "a=b \\c").write_text("odd")
    (files / "sub" / "deep").write_text("deep")
    (files / "-o").write_text("option")
    (tmp_path / "3f1a").write_text("init")
    (tmp_path / "link").symlink_to(tmp_path / "3f1a")
    given = [
        str(script),
        str(files / "a=b \\c"),
        str(files / "sub"),
        str(files / "-o"),
        f"{tmp_path}/3f1a:'init.sh'",
        f"{tmp_path}/link",
    ]
    front.start(release)

    for _ in range(2):
        ok(front.run(transfer_call(release, "context", *given, WHERE, "0", "103")))

    assert made(front, tmp_path) == {
        "context.sh": script.read_bytes(),
        "a=b \\c": b"odd",
        "sub/deep": b"deep",
        "-o": b"option",
        "init.sh": b"init",
        "link": b"init",
    }
    assert list(tmp_path.glob(".onelun-*")) == []


def test_the_cd_is_made_anew_when_the_context_changes(front: FrontEnd, script: Path, tmp_path: Path) -> None:
    front.start()
    call = transfer_call("7.5", "context", str(script), WHERE, "0", "103")
    ok(front.run(call))
    script.write_text("TESTVAR='new'\n")

    ok(front.run(call))

    assert made(front, tmp_path) == {"context.sh": b"TESTVAR='new'\n"}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], "the arguments should be: context FILE... HOST:DIR/disk.N"),
        (["{tmp}/none"], "{tmp}/none does not exist on the front-end"),
        (["relative"], "'relative' is no absolute path"),
        (["{tmp}/context.sh:../../etc"], "'../../etc' is no name for a file on the CD"),
        (["{tmp}/context.sh", "{tmp}/big:context.sh"], "two files would be 'context.sh' on the CD"),
        (["{tmp}/context.sh", "{tmp}/big"], "the context has 17 MiB of files; a VM's directory carries at most 16 MiB"),
        (["/dev/null"], "/dev/null is neither a file nor a directory"),
    ],
)
def test_a_file_that_cannot_be_on_the_cd_is_told_and_nothing_is_made(
    front: FrontEnd, script: Path, tmp_path: Path, files: list[str], sentence: str
) -> None:
    with (tmp_path / "big").open("wb") as file:
        file.truncate(17 << 20)
    front.start()

    given = [name.format(tmp=tmp_path) for name in files]
    told = failed(front.run(Recorded("tm/context", (*given, WHERE, "0", "103"), b"")))

    assert told.startswith("cannot make the context CD: ")
    assert sentence.format(tmp=tmp_path) in told
    assert front.cloud.asked == []
    assert list(tmp_path.glob(".onelun-*")) == []


@pytest.mark.parametrize("release", [release for release in RELEASES if release != "3.4"])
def test_a_system_datastore_has_what_its_pools_have(front: FrontEnd, release: str) -> None:
    front.start(release)

    run = front.run(system_monitor_call(release, "nas1/tank nas2/tank"))

    assert run == ("USED_MB=0\nTOTAL_MB=204800\nFREE_MB=204800\n", "", 0)


def test_a_system_datastore_without_pools_has_those_of_the_configuration(front: FrontEnd) -> None:
    front.settings["pools"] = ("nas2/tank",)
    front.start()

    assert front.run(system_monitor_call("7.5")) == ("USED_MB=0\nTOTAL_MB=102400\nFREE_MB=102400\n", "", 0)


def test_a_system_datastore_without_any_pools_says_what_to_set(front: FrontEnd) -> None:
    front.start()

    told = failed(front.run(system_monitor_call("7.5")))

    assert told.startswith(
        "cannot monitor datastore 103: system datastore 103 does not say where volatile disks and checkpoints live: set"
    )


def test_what_a_killed_one_left_goes_and_what_another_works_in_stays(
    front: FrontEnd, script: Path, tmp_path: Path
) -> None:
    left, used = tmp_path / ".onelun-context-left", tmp_path / ".onelun-context-used"
    for folder in (left, used):
        folder.mkdir()
        (folder / "disk.6.iso").write_text("a secret")
    lock = os.open(used, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    front.start()

    ok(front.run(transfer_call("7.5", "context", str(script), WHERE, "0", "103")))

    os.close(lock)
    assert [path.name for path in tmp_path.glob(".onelun-context-*")] == [used.name]
