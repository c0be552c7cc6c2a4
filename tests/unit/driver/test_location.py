"""Locations, and what host names stand for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelun.driver.location import Directory, Disk, Hosts, parse_disk, parse_location, parse_source_argument
from onelun.errors import Rejected
from onelun.naming import Source

ROOT = "/var/lib/one/datastores"


@pytest.mark.parametrize("path", [f"{ROOT}/0/42", f"{ROOT}/0/42/", "/var/lib/one//datastores/0//42//"])
def test_a_directory_may_have_slashes_to_spare(path: str) -> None:
    assert parse_location(f"host01:{path}", ROOT) == Directory("host01", f"{ROOT}/0/42", 42)


def test_a_disk_has_its_vm_and_its_number() -> None:
    disk = parse_disk("kvm1.example.org:/var/lib/one//datastores/103/42/disk.7", f"{ROOT}/")

    assert disk == Disk("kvm1.example.org", f"{ROOT}/103/42", "disk.7", 42, 7)
    assert disk.path == f"{ROOT}/103/42/disk.7"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host01",
        f"{ROOT}/0/42",
        f":{ROOT}/0/42",
        f"-oProxy=x:{ROOT}/0/42",
        f"ho st:{ROOT}/0/42",
        "host01:",
        "host01:relative/0/42",
        "host01:/etc",
        f"host01:{ROOT}",
        f"host01:{ROOT}/",
        f"host01:{ROOT}/42",
        f"host01:{ROOT}x/0/42",
        f"host01:{ROOT}/0/42/../../../../etc/42",
        f"host01:{ROOT}/0/forty",
        f"host01:{ROOT}/0/42/disk.x",
        f"host01:{ROOT}/0/42/disk.1/more",
        f"host01:{ROOT}/0/42/deployment.0",
        f"host01:{ROOT}/0/42\n",
        f"host01:{ROOT}/0/4\x002",
        f"host01:{ROOT}/0/" + "4" * 300,
        f"host01:{ROOT}/{'x' * 5000}/42",
    ],
)
def test_what_is_no_location_is_rejected(text: str) -> None:
    with pytest.raises(Rejected):
        parse_location(text, ROOT)


@given(st.text())
def test_any_text_is_a_location_below_the_root_or_rejected(text: str) -> None:
    try:
        found = parse_location(f"host01:{text}", ROOT)
    except Rejected:
        return
    assert found.path.startswith(f"{ROOT}/")
    assert ".." not in found.path


@given(st.integers(0, 10**6), st.integers(0, 10**9), st.integers(0, 10**5), st.integers(1, 4))
def test_what_oned_writes_is_read(datastore: int, vm: int, disk: int, slashes: int) -> None:
    text = f"host01:{ROOT}{'/' * slashes}{datastore}{'/' * slashes}{vm}/disk.{disk}"

    found = parse_disk(text, ROOT)

    assert (found.vm_id, found.disk_id, found.path) == (vm, disk, f"{ROOT}/{datastore}/{vm}/disk.{disk}")


@pytest.mark.parametrize("text", ["fe:nas1/tank/one-7", "nas1/tank/one-7", "one.example.org:nas1/tank/one-7"])
def test_a_source_has_the_front_end_s_name_before_it_or_not(text: str) -> None:
    assert parse_source_argument(text) == Source("nas1", "tank", "one-7")


@pytest.mark.parametrize(
    "text", ["", ":", "fe:", "fe:fe:nas1/tank/one-7", "a b:nas1/tank/one-7", "fe:/tank/one-7", "nas1/tank"]
)
def test_what_is_no_source_is_rejected(text: str) -> None:
    with pytest.raises(Rejected):
        parse_source_argument(text)


def test_a_host_stands_for_its_agent() -> None:
    hosts = Hosts({"kvm1": "node1", "both": "node2"}, ("fe", "both"))

    assert hosts.agent("kvm1") == "node1"
    assert hosts.agent("fe") is None
    assert hosts.agent("both") == "node2"


def test_a_host_that_nobody_serves_is_named_with_the_key_to_change() -> None:
    hosts = Hosts({"kvm1": "node1"}, ("fe",))

    with pytest.raises(Rejected, match=r"nobody serves the host 'kvm9'.*frontend\.hosts"):
        hosts.agent("kvm9")
    with pytest.raises(Rejected, match="fe is the front-end, which connects no disks"):
        hosts.compute("fe")
