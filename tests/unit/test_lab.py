"""What the lab computes before anything is built or booted."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from tests.support.lab import sources
from tests.support.lab.apart import fork_inside
from tests.support.lab.calls import _HEADER, _Answer
from tests.support.lab.machine import Guest, machine
from tests.support.lab.place import CHECKOUT, GUESTS, IDS, Lab, LabError, mac
from tests.support.lab.root import PACKAGES, requirements
from tests.support.lab.suites import _LONGEST, parts
from tests.support.requires import requires

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb [signed-by=/usr/share/keyrings/a.gpg] http://mirror.example/debian bookworm main non-free
deb-src http://mirror.example/debian bookworm main
deb http://vendor.example/apt bookworm stable
"""
DEB822 = """\
Types: deb deb-src
URIs: http://mirror.example/debian http://second.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main
Signed-By: /usr/share/keyrings/a.gpg

# off
Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""


@pytest.fixture
def apt(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine's apt directory, as text by path."""
    files: dict[str, str] = {}
    monkeypatch.setattr(sources, "codename", lambda: "bookworm")
    monkeypatch.setattr(sources, "_lines", lambda path: files.get(path, "").splitlines())
    monkeypatch.setattr(
        sources.glob, "glob", lambda pattern: [path for path in files if path.endswith(pattern.rpartition("*")[2])]
    )
    return files


def test_sources_in_one_line_style_are_taken_with_contrib_and_without_vendors(apt: dict[str, str]) -> None:
    apt["/etc/apt/sources.list"] = ONE_LINE

    assert sources.sources() == (
        "deb [signed-by=/usr/share/keyrings/a.gpg] http://mirror.example/debian bookworm main contrib\n"
    )


def test_sources_in_deb822_style_become_a_line_for_each_address_and_suite(apt: dict[str, str]) -> None:
    apt["/etc/apt/sources.list.d/debian.sources"] = DEB822

    lines = sources.sources().splitlines()

    assert lines == [
        f"deb [signed-by=/usr/share/keyrings/a.gpg] http://{host}.example/debian {suite} main contrib"
        for host in ("mirror", "second")
        for suite in ("bookworm", "bookworm-updates")
    ]


def test_a_machine_without_sources_of_the_distribution_is_told_so(apt: dict[str, str]) -> None:
    apt["/etc/apt/sources.list"] = "deb http://vendor.example/apt bookworm stable\n"

    with pytest.raises(LabError, match="no source with the main part of bookworm"):
        sources.sources()


def test_every_lab_and_guest_has_addresses_and_cables_of_its_own() -> None:
    guests = [Guest(Lab(number, f"/lab{number}"), name) for number in IDS for name in GUESTS]

    addresses = [address for g in guests for address in (g.lab.address(g.name), g.lab.agent_address(g.name))]
    assert len(set(addresses)) == len(addresses)
    assert all(address.startswith(("198.18.", "198.19.")) for address in addresses)
    assert len({mac(name, agent=agent) for name in GUESTS for agent in (False, True)}) == 2 * len(GUESTS)
    assert len({tap for g in guests[: len(GUESTS)] for tap in (g.tap, g.agent_tap)}) == 2 * len(GUESTS)


def test_a_guest_in_user_mode_is_told_its_disks_in_order() -> None:
    guest = Guest(Lab(3, "/lab"), "nas1", disks=("/one", "/two"), upper="/upper")

    argv = machine("uml").argv(guest, "/cache/root-1/root")

    assert argv[:2] == ["taskset", "--cpu-list"]
    assert argv[3] == "/cache/root-1/uml/usr/bin/linux.uml"
    assert {"ubd0=/upper", "ubd1=/one", "ubd2=/two", "lab.upper=/dev/ubda", "lab.disks=/dev/ubdb,/dev/ubdc"} <= set(
        argv
    )


def test_a_guest_in_user_mode_has_what_was_compiled_for_this_processor(tmp_path: Path) -> None:
    (tmp_path / "uml").mkdir()
    (tmp_path / "uml" / "xstate.so").touch()

    argv = machine("uml").argv(Guest(Lab(3, "/lab"), "nas1"), f"{tmp_path}/root")

    assert argv[3:6] == ["env", f"LD_PRELOAD={tmp_path}/uml/xstate.so", f"{tmp_path}/uml/usr/bin/linux.uml"]


def test_a_kind_of_guest_that_does_not_exist_is_refused() -> None:
    with pytest.raises(LabError, match="there are no guests of the kind xen"):
        machine("xen")


def test_an_answer_is_read_however_it_is_cut() -> None:
    whole = b"".join(_HEADER.pack(kind, len(text)) + text for kind, text in ((b"o", b"out"), (b"e", b""), (b"x", b"7")))
    for size in (1, 3, len(whole)):
        heard: list[tuple[bytes, bytes]] = []
        answer = _Answer(lambda kind, data, heard=heard: heard.append((kind, data)))  # type: ignore[misc]

        statuses = [answer.take(whole[at : at + size]) for at in range(0, len(whole), size)]

        assert heard == [(b"o", b"out"), (b"e", b"")]
        assert statuses[-1] == 7
        assert set(statuses[:-1]) <= {None}


def test_the_root_has_what_setup_cfg_asks_for() -> None:
    wanted = requirements()

    assert any(line.startswith("pika") for line in wanted)
    assert "pytest" in wanted
    assert any(line.startswith("rtslib") for line in wanted)
    assert len(set(PACKAGES)) == len(PACKAGES)


def test_all_bats_files_and_suites_run_without_a_word_and_only_what_is_named_otherwise() -> None:
    names = [part.name for part in parts([])]
    here = f"{CHECKOUT}/tests/lab/00-engines.bats"

    assert [name for name in names if not name.endswith(".bats")] == [
        "contract zfs",
        "contract lvm",
        "contract lio, iscsi",
    ]
    assert (
        set(os.listdir(f"{CHECKOUT}/tests/lab"))
        >= {name for name in names if name.endswith(".bats")}
        >= {"01-life.bats"}
    )
    assert [part.name for part in parts([here])] == ["00-engines.bats"]
    # A file that was renamed would lose its turn.
    assert set(_LONGEST) <= set(names)
    with pytest.raises(LabError, match=r"there is no x\.bats"):
        parts(["x.bats"])


def test_who_forks_into_a_lab_stays_outside_and_can_end_it() -> None:
    requires("root")
    with subprocess.Popen(["unshare", "--mount", "--pid", "--kill-child", "--mount-proc", "sleep", "60"]) as unshare:
        try:
            holder = first_child(unshare.pid)
            outside = os.readlink("/proc/self/ns/mnt")

            child = fork_inside(holder)
            if child == 0:
                os._exit(7 if os.readlink("/proc/self/ns/mnt") == os.readlink("/proc/1/ns/mnt") != outside else 1)

            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
            assert os.readlink("/proc/self/ns/mnt") == outside
        finally:
            unshare.kill()


def first_child(pid: int) -> int:
    end = time.monotonic() + 60
    while True:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            if (children := file.read().split()) and os.path.exists(f"/proc/{children[0]}/ns/mnt"):
                with open(f"/proc/{children[0]}/comm") as comm:
                    if comm.read().strip() == "sleep":
                        return int(children[0])
        assert time.monotonic() < end
        time.sleep(0.01)
