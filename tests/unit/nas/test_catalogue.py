"""What the NAS agent remembers."""

import sqlite3
import stat

import pytest

from onelun.nas import catalogue as module
from onelun.nas.catalogue import ATTACHED, ATTACHING, AttachmentRow, Catalogue, Debt, Placement


def _row(**changed):
    facts = {
        "uuid": "u1",
        "host": "node1",
        "pool": "tank",
        "zvol": "one-1",
        "iqn": "iqn.x:1",
        "epoch": 7,
        "initiator": "iqn.i:1",
        "readonly": False,
        "state": ATTACHING,
    }
    return AttachmentRow(**{**facts, **changed})


@pytest.fixture
def catalogue(tmp_path):
    opened = Catalogue(str(tmp_path / "catalogue.sqlite"))
    yield opened
    opened.close()


def test_what_was_put_is_there_after_a_reopening(tmp_path):
    path = str(tmp_path / "catalogue.sqlite")
    first = Catalogue(path)
    first.put(_row(readonly=True))
    first.set_meta("serial", "3")
    first.close()

    again = Catalogue(path)

    assert again.attachments(host="node1") == [_row(readonly=True)]
    assert again.meta("serial") == "3"
    again.close()


def test_the_file_is_for_its_owner_alone(tmp_path):
    path = tmp_path / "catalogue.sqlite"

    Catalogue(str(path)).close()

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_putting_a_row_again_replaces_it(catalogue):
    catalogue.put(_row())

    catalogue.put(_row(state=ATTACHED))

    assert [row.state for row in catalogue.attachments()] == [ATTACHED]


def test_dropping_an_attachment_of_an_older_epoch_leaves_the_newer_one(catalogue):
    catalogue.put(_row(epoch=8, iqn="iqn.x:8"))

    catalogue.drop(_row(epoch=7))

    assert [row.epoch for row in catalogue.attachments()] == [8]


def test_a_change_that_fails_half_way_changes_nothing(catalogue):
    catalogue.put(_row())

    with pytest.raises(TypeError):
        catalogue.change(drop=[_row(), object()])  # type: ignore[list-item]

    assert len(catalogue.attachments()) == 1


def test_a_placement_is_found_by_any_of_its_names(catalogue):
    placed = Placement(
        cloud="c", vm=3, disk=0, path="/d/3/disk.0", pool="tank", zvol="one-1-3-0", uuid="u", host="node1"
    )
    catalogue.put(placed)

    assert catalogue.placements(cloud="c", vm=3) == [placed]
    assert catalogue.placements(cloud="c", path="/d/3/disk.0") == [placed]
    assert catalogue.placements(cloud="other", vm=3) == []


def test_two_targets_of_one_name_cannot_be(catalogue):
    catalogue.put(Debt(iqn="iqn.x:1", host="node1", pool="tank", zvol="one-1", uuid="u1", epoch=7))

    catalogue.put(Debt(iqn="iqn.x:1", host="node2", pool="tank", zvol="one-1", uuid="u1", epoch=7))

    assert [debt.host for debt in catalogue.debts()] == ["node2"]


def test_a_file_that_is_no_catalogue_is_refused(tmp_path):
    path = tmp_path / "catalogue.sqlite"
    path.write_bytes(b"not a database at all, but long enough to be read as one" * 50)

    with pytest.raises(sqlite3.DatabaseError):
        Catalogue(str(path))


def test_a_second_attachment_under_one_iqn_is_refused_and_the_first_stays(catalogue):
    catalogue.put(_row())

    with pytest.raises(sqlite3.IntegrityError):
        catalogue.put(_row(uuid="u2", zvol="one-2"))

    assert [row.zvol for row in catalogue.attachments()] == ["one-1"]


def test_a_change_that_a_full_disk_refuses_is_none_and_the_next_one_is_made_when_there_is_room(tmp_path):
    path = str(tmp_path / "catalogue.sqlite")
    catalogue = Catalogue(path)
    _allow_pages(catalogue, 1)
    many = [_row(uuid=f"u{number}", zvol="x" * 1000, iqn=f"iqn.x:{number}") for number in range(200)]

    with pytest.raises(sqlite3.OperationalError, match="full"):
        catalogue.put(*many)
    refused = catalogue.attachments()
    _allow_pages(catalogue, 1 << 30)
    catalogue.put(_row())

    assert refused == []
    assert catalogue.attachments() == [_row()]
    catalogue.close()


def _allow_pages(catalogue, number):
    """As a disk with so much room; SQLite takes what is there already for granted."""
    catalogue._db.execute(f"PRAGMA max_page_count={number}")


def _placed(vm, disk=0, cloud="c1"):
    return Placement(cloud, vm, disk, f"/{vm}/disk.{disk}", "tank", f"one-{vm}-{disk}", f"u{vm}-{disk}")


def test_the_pages_of_placements_have_each_of_the_clouds_once(catalogue, monkeypatch):
    monkeypatch.setattr(module, "_PAGE", 2)
    ours = [_placed(1, 0), _placed(1, 1), _placed(1, 2), _placed(2), _placed(10)]
    catalogue.put(*reversed(ours), _placed(1, cloud="c2"))

    pages = list(catalogue.placement_pages("c1"))

    assert pages == [ours[:2], ours[2:4], ours[4:]]
    assert list(catalogue.placement_pages("c3")) == []


def test_what_is_dropped_between_two_pages_hides_no_other(catalogue, monkeypatch):
    monkeypatch.setattr(module, "_PAGE", 2)
    ours = [_placed(vm) for vm in range(5)]
    catalogue.put(*ours)

    pages = catalogue.placement_pages("c1")
    first = next(pages)
    catalogue.drop(ours[0], ours[1], ours[2])

    assert first + [one for page in pages for one in page] == [*ours[:2], *ours[3:]]
