"""A trial in the lab is judged by what all its hosts have, and by the bytes that they read."""

from __future__ import annotations

import os

import pytest
from scripts.lib.chaos import lab
from scripts.lib.chaos.lab import LabCloud
from tests.support.lab.place import Lab
from tests.support.oned import Oned

from onelun.faults.plan import Plan

SIZE = 64 << 20
NAS = {
    "volumes": {"one-4": {"size_bytes": SIZE, "content": "sum", "snapshots": {"snap-0": "older"}}},
    "exports": [["one-4", "node1"]],
    "left": [],
}
LINK = "-> /dev/onelun/nas1/tank/one-4"


def host(disks: dict[str, tuple[int, str]] | None = None, *left: str) -> dict[str, object]:
    return {"disks": disks or {}, "entries": [], "left": list(left)}


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """A cloud whose guests have what `seen` says."""
    for name in ("frontend/staging", "datastores"):
        os.makedirs(tmp_path / name)
    made = LabCloud(Lab(0, str(tmp_path)), Oned(), None)
    made.seen = {"nas1": NAS, "node1": host({"one-4": (SIZE, "sum")}), "node2": host()}
    monkeypatch.setattr(made, "_seen", lambda name: made.seen[name])
    return made


def test_all_hosts_are_seen(cloud):
    uid = cloud.place.frontend_uid
    cloud.seen["node1"]["entries"] = [["103/0", "directory", uid], ["103/0/disk.1", LINK, 0]]

    found = cloud.state()

    assert found.volumes["one-4"].snapshots == {"snap-0": "older"}
    assert found.exports == found.devices == {("one-4", "node1")}
    assert found.entries == {("node1", "103/0"): "directory", ("node1", "103/0/disk.1"): f"{LINK} of user 0"}
    assert found.leftovers == ()


@pytest.mark.parametrize("read", [(SIZE, "other"), (SIZE // 2, "sum")], ids=["other bytes", "another size"])
def test_a_host_that_reads_something_else_is_a_loss(cloud, read):
    cloud.seen["node1"] = host({"one-4": read})

    assert cloud.state().leftovers[0].startswith("missing: one-4 is other on node1")


def test_what_is_left_on_a_host_is_told(cloud):
    cloud.seen["node2"] = host({}, "sdb has no name")

    assert cloud.state().leftovers == ("node2: sdb has no name",)


def test_deaths_in_a_guest_are_planned_there(cloud, monkeypatch):
    told = []
    monkeypatch.setattr(lab, "check", lambda _, name, *argv, **__: told.append((name, argv[-2:])))

    cloud.faulted.arm(Plan("a/run", "die", role="nas1"))

    assert told == [("nas1", ("plan.json", "fired.json"))]
    assert not cloud.faulted.fell()
