"""What only the kernel's initiator can show: sessions that outlive their NAS, records, iscsid, and others on the same host.

The twenty behaviours of initiators that are known from Cinder's os-brick, and where each is held to account here. M is
tests/contract/test_connectors.py, U are those in tests/unit/compute/connectors/iscsi.

 1 the order of steps             test_one_connect_is_one_login_and_no_discovery
 2 a session that exists          M connecting twice; test_a_session_with_an_old_secret_is_made_anew
 3 the portal in another spelling test_a_portal_in_another_spelling_is_the_same_session
 4 a login that fails             M a wrong secret is rejected; U a record never logs in by itself
 5 a database that is locked      test_a_lock_that_a_killed_iscsiadm_left_is_broken
 6 number and time of scans       test_an_absent_lun_is_not_found_in_time (one scan, and a stop at the deadline)
 7 clean-up before the error      the same, and M whatever is refused leaves nothing
 8 some paths of several fail     no: there is one path; a NAS's portal that is to survive a cable is bonded or moved
 9 our LUN among a session's      test_a_session_whose_other_lun_is_in_use_stays_without_ours
10 a session in use by others     the same
11 force goes through every step  test_force_ends_in_time_without_an_answer_of_iscsid
12 nothing to clean               M disconnecting an absent target succeeds
13 a record that is gone already   test_a_session_ends_although_its_record_is_gone
14 a flush that fails             test_a_flush_that_fails_removes_nothing
15 multipathd keeps a path        no: there is no multipath device (see 8)
16 a device that does not go      test_force_frees_a_writer_behind_a_cut_cable_in_time
17 only the used path is flushed  no: there is one path
18 parsers survive noise          U noise is passed over
19 no secret in a log             test_nothing_shows_the_secret
20 a disk, not its partition      test_a_partitioned_volume_is_the_disk_and_its_partitions_count_as_use; LUNs above 255 are
                                  refused where a request is read (compute/wanted.py)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.support.blocks import forget
from tests.support.cable import Cable
from tests.support.iscsi import Lab
from tests.support.iscsi import lab as make_lab
from tests.support.iscsi_open import (
    OpenIscsiLab,
)

from onelun.compute.connectors.iscsi.connector import IscsiConnector


@pytest.fixture
async def iscsi() -> AsyncIterator[OpenIscsiLab]:
    with make_lab(OpenIscsiLab) as place:
        assert isinstance(place, OpenIscsiLab)
        yield place
        await forget(place)


@pytest.fixture
async def lio() -> AsyncIterator[Lab]:
    # rtslib is there in a guest alone.
    from tests.support.iscsi_lio import LioLab

    with make_lab(LioLab) as place:
        yield place
        await forget(place)


@pytest.fixture
def node1(iscsi: OpenIscsiLab) -> IscsiConnector:
    return iscsi.connector("node1")


@pytest.fixture
def cable(iscsi: OpenIscsiLab) -> Iterator[Cable]:
    with Cable(iscsi.portal) as made:
        yield made
        made.heal()
