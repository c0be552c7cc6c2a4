"""Whether the frontend's socket is served, and by whom, as a check tells it."""

from __future__ import annotations

import mmap
import os
import socket
from pathlib import Path

from onelun.frontend.reach import findings


def test_a_socket_that_is_served_by_its_owner_is_fine(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        assert findings(str(tmp_path / "s"), os.getuid()) == []


def test_another_user_s_frontend_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))
        listening.listen()

        told = findings(str(tmp_path / "s"), os.getuid() + 1)

    assert "is served by user" in told[0]


def test_a_socket_that_nobody_serves_is_named(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "s"))

    assert findings(str(tmp_path / "s"), os.getuid())[0].startswith("no frontend serves")
    assert findings(str(tmp_path / "none"), os.getuid())[0].startswith("no frontend serves")


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("")

    assert "is no socket: remove it" in findings(str(tmp_path / "s"), os.getuid())[0]


def test_a_frontend_whose_environment_was_replaced_is_named(tmp_path: Path) -> None:
    library = tmp_path / "site-packages" / "lib.so"
    library.parent.mkdir()
    library.write_bytes(b"x" * mmap.PAGESIZE)
    with socket.socket(socket.AF_UNIX) as listening, library.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        before = findings(str(tmp_path / "s"), os.getuid())
        library.unlink()

        after = findings(str(tmp_path / "s"), os.getuid())

    assert before == []
    assert after == [
        "the frontend that runs is of another release than what is installed: `systemctl restart onelun-frontend`"
    ]
