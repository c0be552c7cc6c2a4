"""What a check of the front-end says of the scripts under remotes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from onelun.registration.scripts import ROOMS, findings

CHECKOUT = Path(__file__).parents[3]


@pytest.fixture
def remotes(tmp_path: Path) -> Path:
    for room in ROOMS:
        kept = tmp_path / room / "onelun"
        shutil.copytree(CHECKOUT / room / "onelun", kept, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def told(remotes: Path) -> list[str]:
    return findings(str(remotes), str(CHECKOUT), os.getuid())


def test_what_was_installed_is_fine(remotes: Path) -> None:
    (remotes / "datastore/onelun/__pycache__").mkdir()

    assert told(remotes) == []


def test_a_room_that_is_missing_is_named(remotes: Path) -> None:
    shutil.rmtree(remotes / "tm")

    assert told(remotes) == [f"{remotes}/tm/onelun is missing: `install.sh --frontend` puts it right"]


def test_scripts_of_another_release_are_named(remotes: Path) -> None:
    (remotes / "tm/onelun/clone").write_text("#!/usr/bin/python3\n")
    (remotes / "tm/onelun/mv").unlink()
    older = remotes / "tm/onelun/older"
    older.write_text("")
    older.chmod(0o755)

    said = told(remotes)

    assert f"{remotes}/tm/onelun/mv is missing: `install.sh --frontend` puts it right" in said
    assert any("tm/onelun has scripts of another release (older, clone)" in each for each in said)


@pytest.mark.parametrize(("mode", "sentence"), [(0o644, "cannot be run by"), (0o757, "may be written by everybody")])
def test_modes_that_stop_oned_or_open_a_door_are_named(remotes: Path, mode: int, sentence: str) -> None:
    (remotes / "tm/onelun/clone").chmod(mode)

    said = told(remotes)

    assert len(said) == 1
    assert said[0].startswith(f"{remotes}/tm/onelun/clone {sentence}")


def test_a_link_is_named_for_it_would_be_followed_to_every_host(remotes: Path) -> None:
    clone = remotes / "tm/onelun/clone"
    clone.unlink()
    clone.symlink_to(CHECKOUT / "tm/onelun/clone")

    assert any("is a symbolic link" in each for each in told(remotes))


@pytest.mark.real
def test_a_stranger_s_script_is_named(remotes: Path) -> None:
    os.chown(remotes / "tm/onelun/clone", 12345, 12345)

    assert told(remotes) == [
        f"{remotes}/tm/onelun/clone belongs to user 12345, not to root: `install.sh --frontend` puts it right"
    ]
