"""Names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelun.errors import Rejected
from onelun.naming import (
    Source,
    checked_initiator,
    checked_name,
    checked_uuid,
    disk_volume,
    epoch_of,
    is_target_of,
    parse_source,
    snapshot_id,
    target_account,
    target_iqn,
)

NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(
    lambda name: not name.startswith(("snapshot", "pvmove"))
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a..b",
        "-a",
        "a-",
        "A",
        "a_b",
        "a/b",
        "a b",
        "a\n",
        "a\0",
        "ä",
        "x" * 64,
        "snapshot1",
        "pvmove0",
        "a:b",
    ],
)
def test_what_is_no_name_is_rejected_and_said(text):
    with pytest.raises(Rejected, match="is no name"):
        checked_name(text)


@given(st.text(max_size=80))
def test_a_name_that_passes_is_safe_in_a_path_an_iqn_and_a_transfer_script(text):
    try:
        name = checked_name(text)
    except Rejected:
        return

    assert name == text
    assert not set(name) & set("/: \n\t\0_'\"\\$;")
    assert name not in (".", "..")
    assert name.isascii()
    assert name == name.lower()


@given(NAMES, NAMES, NAMES)
def test_a_source_is_read_back_as_it_was_written(nas, pool, volume):
    source = Source(nas, pool, volume)

    assert parse_source(str(source)) == source
    assert ":" not in str(source)
    assert source.device == f"/dev/onelun/{nas}/{pool}/{volume}"


@pytest.mark.parametrize(
    "text",
    ["", "nas1", "nas1/tank", "nas1/tank/one-1/x", "/nas1/tank/one-1", "nas1//one-1", "nas1/tank/../x", "a:nas1/t/o"],
)
def test_what_is_no_source_is_rejected(text):
    with pytest.raises(Rejected):
        parse_source(text)


def test_targets_of_one_and_ten_are_told_apart():
    one, ten = (target_iqn(Source("nas1", "tank", f"one-{n}"), 1) for n in (1, 10))

    assert one != ten
    assert target_account(one) != target_account(ten)


def test_a_target_is_its_own_nass_alone():
    iqn = target_iqn(Source("nas1", "tank", "one-1"), 7)

    assert is_target_of("nas1", iqn)
    assert not is_target_of("nas", iqn)
    assert not is_target_of("nas1", "iqn.2003-01.org.linux-iscsi:x")
    assert not is_target_of("nas1", iqn + "x")


def test_names_that_are_too_long_together_make_no_target():
    with pytest.raises(Rejected, match="too long together"):
        target_iqn(Source("n" * 63, "p" * 63, "v" * 63), 123456789012)


@pytest.mark.parametrize("text", ["", "node1", "iqn.", "iqn.x y", "iqn.a\n", "iqn." + "a" * 300, "iqn.a;b"])
def test_what_is_no_initiator_is_rejected(text):
    with pytest.raises(Rejected, match="initiator"):
        checked_initiator(text)


def test_an_initiator_is_folded_to_lower_case():
    assert checked_initiator("IQN.2026-11.io.Onelun:Node1") == "iqn.2026-11.io.onelun:node1"


@pytest.mark.parametrize("text", ["", "x", None, 7, "00000000-0000-0000-0000-00000000000g"])
def test_what_is_no_uuid_is_rejected(text):
    with pytest.raises(Rejected, match="UUID"):
        checked_uuid(text)


@given(st.integers(0, 10**9), st.integers(0, 10**4))
def test_two_disks_never_share_a_volume(vm, disk):
    name = disk_volume("one-1", vm, disk)

    assert name != disk_volume("one-1", vm + 1, disk)
    assert name != disk_volume("one-1", vm, disk + 1)


def test_a_snapshot_with_a_number_of_5000_digits_is_none_of_opennebula_s():
    assert snapshot_id("snap-" + "9" * 5000) is None


@pytest.mark.parametrize(
    ("iqn", "epoch"),
    [
        ("iqn.2026-11.io.onelun.nas1:tank.one-1.e1", 1),
        ("iqn.2026-11.io.onelun.nas1:tank.one-1.e10", 10),
        ("iqn.2026-11.io:x", 0),
        ("iqn.2026-11.io:x.e0", 0),
        ("iqn.2026-11.io:x.ee1", 0),
    ],
)
def test_the_epoch_is_read_from_the_end_of_an_iqn(iqn: str, epoch: int) -> None:
    assert epoch_of(iqn) == epoch
