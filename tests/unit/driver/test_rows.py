"""Rows that agents list, of this release and of others."""

import pytest

from onelun.driver.rows import DiskRow, PlacementRow, VolumeRow, rows_of
from onelun.errors import ProtocolError

PLACED = {"vm": 7, "disk": 0, "zpool": "tank", "zvol": "one-1-7-0", "kind": "disk"}


def test_fields_of_a_newer_release_are_passed_over():
    assert rows_of("nas1", [{**PLACED, "later": {}}], PlacementRow) == [PlacementRow(0, "tank", "one-1-7-0", "disk")]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"vm": 7, "disk": 0}, PlacementRow),
        ({**PLACED, "disk": "0"}, PlacementRow),
        ({**PLACED, "zpool": 5}, PlacementRow),
        ({"zvol": None}, VolumeRow),
        ({"zvol": "one-1", "size_bytes": None}, VolumeRow),
        ({"vm": 7, "disk": 0, "path": "/a"}, DiskRow),
        ({"vm": 7, "disk": 0, "path": "/a", "used_bytes": 1, "snapshots": None}, DiskRow),
    ],
)
def test_a_row_that_lacks_what_is_asked_for_is_an_error_of_its_agent(row, kind):
    with pytest.raises(ProtocolError, match="nas1 lists what this release cannot read"):
        rows_of("nas1", [row], kind)
