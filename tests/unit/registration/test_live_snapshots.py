"""LIVE_DISK_SNAPSHOTS in vmm_execrc: onelun's pairs go in and come out; every other byte stays."""

from __future__ import annotations

import pytest
from tests.support.oned_conf import VMM_EXECRC

from onelun.errors import Rejected
from onelun.registration.live_snapshots import findings, registered, unregistered

PAIRS = "kvm-onelun qemu-onelun"


def test_the_pairs_are_added_once() -> None:
    text = registered(VMM_EXECRC)

    assert f'qemu-qcow2 {PAIRS}"\n' in text
    assert registered(text) == text
    assert findings(text) == []
    assert "does not list kvm-onelun" in findings(VMM_EXECRC)[0]


@pytest.mark.parametrize(
    "line",
    [
        'LIVE_DISK_SNAPSHOTS="kvm-qcow2 kvm-ssh"',
        "LIVE_DISK_SNAPSHOTS='kvm-qcow2'",
        'export LIVE_DISK_SNAPSHOTS="kvm-qcow2 " # ours',
        'LIVE_DISK_SNAPSHOTS=""',
        'LIVE_DISK_SNAPSHOTS="kvm-qcow2 \\\n  kvm-ssh"',
        'LIVE_DISK_SNAPSHOTS="old"\nLIVE_DISK_SNAPSHOTS="kvm-onelun2 my-kvm-onelun"',
    ],
)
@pytest.mark.parametrize("ending", ["", "\n", "\nX=1\n"])
def test_taking_them_out_gives_the_file_back(line: str, ending: str) -> None:
    before = f"# LIVE_DISK_SNAPSHOTS=none\n{line}{ending}"

    after = registered(before)

    assert after != before
    assert findings(after) == []
    assert unregistered(after) == before


def test_a_file_without_the_list_has_nothing_to_take_out() -> None:
    assert unregistered("# 3.4\n") == "# 3.4\n"


@pytest.mark.parametrize(
    "line", ["", "LIVE_DISK_SNAPSHOTS=kvm-qcow2", 'LIVE_DISK_SNAPSHOTS="$OTHER kvm-x"', 'LIVE_DISK_SNAPSHOTS="a']
)
def test_what_is_no_quoted_list_is_refused(line: str) -> None:
    with pytest.raises(Rejected):
        registered(f"{line}\n")
