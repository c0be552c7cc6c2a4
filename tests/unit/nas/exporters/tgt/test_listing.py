"""tgtd's printed lists, as the daemon prints them and as an initiator might forge them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelun.errors import ProtocolError
from onelun.nas.exporters.tgt.listing import (
    parse_accounts,
    parse_connections,
    parse_targets,
    parse_tids,
    printed_size,
)

IQN = "iqn.2026-11.io.onelun.nas1:tank.one-1.e1"
OTHER = "iqn.2026-11.io.onelun.nas1:tank.one-10.e1"
UUID = "0a7b46e2-1111-4222-8333-aaaabbbbcccc"

SHOWN = f"""\
Target 3: {IQN}
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 1
            Initiator: iqn.x:a alias: ALIAS
            Connection: 0
                IP Address: 127.0.0.1
    LUN information:
        LUN: 0
            Type: controller
            SCSI ID: IET     00030000
            SCSI SN: beaf30
            Size: 0 MB, Block size: 1
            Online: Yes
            Backing store type: null
            Backing store path: None
            Backing store flags: \n\
        LUN: 1
            Type: disk
            SCSI ID: {UUID}
            SCSI SN: {UUID}
            Size: 67 MB, Block size: 512
            Online: Yes
            Readonly: No
            Thin-provisioning: Yes
            Backing store type: rdwr
            Backing store path: /pool/one: 1/data
            Backing store flags: \n\
    Account information:
        nas1:tank.one-1.e1
    ACL information:
        iqn.x:a
Target 4: {OTHER}
    System information:
        Driver: iscsi
        State: offline
    I_T nexus information:
    LUN information:
        LUN: 0
            Type: controller
    Account information:
    ACL information:
"""


def test_a_target_is_read_with_all_that_counts():
    one = parse_targets(SHOWN)[IQN]

    assert (one.tid, one.iqn, one.state) == (3, IQN, "ready")
    assert (one.sessions, one.accounts, one.allowed) == (("iqn.x:a",), ("nas1:tank.one-1.e1",), ("iqn.x:a",))
    assert one.lun["SCSI SN"] == UUID
    assert one.lun["Backing store path"] == "/pool/one: 1/data"
    assert one.lun["Size"] == "67 MB, Block size: 512"


def test_a_target_that_was_only_begun_is_empty():
    begun = parse_targets(SHOWN)[OTHER]

    assert (begun.state, begun.sessions, begun.lun, begun.accounts, begun.allowed) == ("offline", (), {}, (), ())


def test_an_alias_that_pretends_another_target_is_refused():
    forged = f"x\nTarget 4: {OTHER}\n    System information:\n        State: ready"

    with pytest.raises(ProtocolError, match="forges"):
        parse_targets(SHOWN.replace("ALIAS", forged))


def test_an_alias_that_pretends_a_number_of_another_target_is_refused():
    with pytest.raises(ProtocolError):
        parse_targets(SHOWN.replace("ALIAS", "x\nTarget 4: iqn.2026-11.io.onelun.nas1:tank.none.e1"))


@given(st.text())
def test_nothing_that_is_printed_makes_the_readers_fail_otherwise(text):
    for parse in (parse_targets, parse_tids, parse_connections, parse_accounts):
        try:
            parse(text)
        except ProtocolError:
            assert parse is parse_targets


def test_nothing_printed_is_no_target_and_no_account():
    assert parse_targets("") == {}
    assert parse_tids("LLDs:\n    iscsi: ready\n    iser: error\n") == {}
    assert parse_accounts("") == set()
    assert parse_connections("") == []


def test_numbers_accounts_and_connections_are_read():
    assert parse_tids(f"LLDs:\n    iscsi: ready\n        Target 3: {IQN}\n        Target 12: {OTHER}\n") == {
        IQN: 3,
        OTHER: 12,
    }
    assert parse_accounts("Account list:\n    one\n    two:2\n") == {"one", "two:2"}
    shown = "Session: 7\n    Connection: 0\n        Initiator: iqn.x:a\n        IP Address: 127.0.0.1\n"
    assert parse_connections(shown + shown.replace("7", "9")) == [(7, 0), (9, 0)]


@pytest.mark.parametrize(
    ("size_bytes", "printed"),
    # Printed by tgtd 1.0.85 for files of these lengths.
    [(512, "0 MB"), (1 << 20, "1 MB"), (64 << 20, "67 MB"), (1 << 30, "1074 MB"), (1 << 40, "1099512 MB")],
)
def test_a_size_is_predicted_as_tgtd_prints_it(size_bytes, printed):
    assert printed_size(size_bytes) == printed


@given(st.integers(0, 1 << 22))
def test_sizes_a_mebibyte_apart_are_printed_differently(mebibytes):
    assert printed_size(mebibytes << 20) != printed_size((mebibytes + 1) << 20)
