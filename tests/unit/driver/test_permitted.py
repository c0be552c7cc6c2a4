"""Which files may be registered, when somebody exchanges them in that very moment."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import msgspec
import pytest

from onelun.driver.document import Datastore
from onelun.driver.permitted import open_image
from onelun.errors import NotFound, Rejected

TURNS = 3000
LIMIT_S = 60.0


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that users write to, with an image, and one that is restricted, with a secret of the same name."""
    for name, text in (("upload", "an image"), ("restricted", "a secret")):
        (tmp_path / name / "sub").mkdir(parents=True)
        (tmp_path / name / "sub" / "disk").write_text(text)
    return tmp_path


def datastore(place: Path, **other: tuple[str, ...]) -> Datastore:
    one = Datastore(
        id=102,
        name="onelun",
        pools="nas1/tank",
        safe_dirs=(),
        restricted_dirs=(str(place / "restricted"),),
        no_decompress=False,
    )
    return msgspec.structs.replace(one, **other)


def swap_file(place: Path, turn: int) -> None:
    aside = place / f"aside-{turn}"
    if turn % 2:
        aside.write_text("an image")
    else:
        aside.symlink_to(place / "restricted/sub/disk")
    os.replace(aside, place / "upload/sub/disk")


def swap_directory(place: Path, turn: int) -> None:
    sub = place / "upload/sub"
    if turn % 2:
        sub.unlink()
        os.rename(place / "kept", sub)
    else:
        os.rename(sub, place / "kept")
        sub.symlink_to(place / "restricted/sub")


@pytest.mark.parametrize("swap", [swap_file, swap_directory])
@pytest.mark.parametrize("safe", [False, True], ids=["restricted", "outside what is safe"])
def test_a_file_that_becomes_a_link_at_any_moment_is_judged_by_what_was_opened(
    place: Path, safe: bool, swap: Callable[[Path, int], None]
) -> None:
    limits = datastore(place)
    if safe:
        limits = datastore(place, safe_dirs=(str(place / "upload"),), restricted_dirs=("/",))
    done = threading.Event()

    def keep_swapping() -> None:
        for turn in count():
            if done.is_set() and turn % 2 == 0:
                return
            swap(place, turn)

    swapper = threading.Thread(target=keep_swapping)
    swapper.start()
    read, refused = set(), 0
    try:
        end = time.monotonic() + LIMIT_S
        for turn in count():
            # A busy machine may let the other thread begin only when these are over.
            if turn >= TURNS and ((read and refused) or time.monotonic() > end):
                break
            with suppress(NotFound):
                try:
                    descriptor = open_image(str(place / "upload/sub/disk"), limits)
                except Rejected as error:
                    refused += "from which no image may be registered" in str(error)
                else:
                    read.add(os.read(descriptor, 100))
                    os.close(descriptor)
    finally:
        done.set()
        swapper.join(60)

    assert read == {b"an image"}
    assert refused


@pytest.mark.parametrize(
    "path",
    [
        "upload/../restricted/sub/disk",
        "upload/sub/../../restricted/./sub//disk",
        "upload/link/disk",
        "upload/link/../sub/disk",
    ],
)
def test_no_way_around_leads_into_a_restricted_directory(place: Path, path: str) -> None:
    (place / "upload/link").symlink_to("../restricted/sub")

    with pytest.raises(Rejected, match="from which no image may be registered"):
        open_image(f"{place}/{path}", datastore(place))


def test_a_directory_whose_name_begins_alike_is_not_safe(place: Path) -> None:
    (place / "upload-evil").mkdir()
    (place / "upload-evil/disk").write_text("x")

    with pytest.raises(Rejected):
        open_image(
            str(place / "upload-evil/disk"),
            datastore(place, safe_dirs=(str(place / "upload"),), restricted_dirs=("/",)),
        )
