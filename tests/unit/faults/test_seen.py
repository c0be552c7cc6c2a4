"""What scripts/chaos sees in a lab's guest is what is there."""

from __future__ import annotations

import json

import pytest
from tests.support import observed
from tests.support.lab.guest import seen

OLD, NEW = "11111111-0000-4000-8000-000000000000", "22222222-0000-4000-8000-000000000000"


def lv(uuid: str, state: str, *tags: str, active: str = "", end: str = "") -> dict[str, str]:
    told = (f"onelun.uuid={uuid}", f"onelun.name=one-{uuid[0]}", f"onelun.state={state}", *tags, "an.operators=own")
    return {"lv_name": f"onelun-{uuid}{end}", "lv_tags": ",".join(told), "lv_active": active, "pool_lv": "thin"}


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch):
    """The volume group `onelun`, with what is put into it."""
    there: list[dict[str, str]] = []
    thin = {"lv_name": "thin", "lv_tags": "", "lv_active": "active", "pool_lv": ""}

    def run(*argv: str) -> str:
        return json.dumps({"report": [{"lv": [thin, *there]}]}) if argv[0] == "lvs" else ""

    monkeypatch.setattr(seen, "run", run)
    monkeypatch.setattr(seen, "targets", lambda: ([], [], set()))
    monkeypatch.setattr(seen, "content", lambda path: (4 << 20, path))
    return there


def test_volumes_and_their_snapshots_are_seen_and_the_trash_is_not(group):
    snapshot = {
        "lv_name": "s",
        "lv_tags": f"onelun.of={OLD},onelun.snapshot=snap-0",
        "lv_active": "",
        "pool_lv": "thin",
    }
    group += [lv(OLD, "ready"), snapshot, lv(NEW, "trash")]

    found = seen.nas("onelun")

    path = f"/dev/onelun/onelun-{OLD}"
    told = {"size_bytes": 4 << 20, "content": path, "snapshots": {"snap-0": "/dev/onelun/s"}}
    assert found == {"volumes": {"one-1": told}, "exports": [], "left": []}


def test_a_volume_that_another_replaces_is_not_seen(group):
    group += [lv(OLD, "ready"), lv(NEW, "ready", f"onelun.replaces={OLD}#1.0")]

    assert list(seen.nas("onelun")["volumes"]) == ["one-2"]


@pytest.mark.parametrize(
    "left",
    [
        lv(OLD, "building"),
        lv(OLD, "ready", end=".was"),
        lv(OLD, "ready", active="active"),
        {"lv_name": "lvol0", "lv_tags": "", "lv_active": "", "pool_lv": "thin"},
        {"lv_name": "s", "lv_tags": f"onelun.of={OLD},onelun.snapshot=snap-0", "lv_active": "", "pool_lv": "thin"},
    ],
    ids=["half made", "half reverted", "active though not exported", "nobody's", "a snapshot of nothing"],
)
def test_what_is_left_is_told(group, left):
    group += [left]

    assert left["lv_name"] in seen.nas("onelun")["left"][0]


def test_a_devices_bytes_have_the_same_sum_as_a_files(tmp_path, monkeypatch):
    monkeypatch.setattr(seen.fcntl, "ioctl", lambda *_: None)
    path = tmp_path / "device"
    path.write_bytes(bytes(1 << 20) + b"words" + bytes(2 << 20))

    assert seen.content(str(path)) == (path.stat().st_size, observed.content(path))
