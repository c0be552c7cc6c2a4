"""What a check of the front-end says of oned's hosts, datastores and pools, and of the agents behind them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.fake_nas import Cloud
from tests.support.oned import Oned, serving
from tests.support.recorded import show

from onelun.config import Frontend
from onelun.driver.api import Api
from onelun.driver.checking import Checking
from onelun.errors import Unreachable
from onelun.registration.wanted import tm_mad_conf
from onelun.rpc.message import ListDev

GIB = 1 << 30
WANTED = tm_mad_conf((7, 4))
COPIED = {key: value for key, value in WANTED.items() if key not in ("NAME", "SHARED") and not key.startswith("DS_")}


class Front:
    def __init__(self, oned: Oned, auth: str) -> None:
        self.oned = oned
        self.cloud = Cloud({"nas1": {"tank": GIB}})
        self._api = Api(oned.url, auth)

    def checking(self, **settings: object) -> Checking:
        known: dict[str, object] = {
            "cloud": "3f0c5a4e-6f0f-4b62-9d39-2d1f6a1c7b11",
            "opennebula_version": "7.5",
            "nas": ("nas1",),
            "names": ("vm",),
            "hosts": {"host01": "node1"},
        }
        return Checking(Frontend(**{**known, **settings}), self._api, self.cloud, "onelun")  # type: ignore[arg-type]

    def datastore(self, ds_mad: str = "onelun", pools: str | None = "nas1/tank", **changes: str | None) -> None:
        attributes = {**COPIED, "ONELUN_POOLS": pools, **changes}
        template = "".join(f"<{k}><![CDATA[{v}]]></{k}>" for k, v in attributes.items() if v is not None)
        self.oned.pools["datastorepool"] = (
            "<DATASTORE_POOL><DATASTORE><ID>0</ID><NAME>system</NAME><DS_MAD/><TM_MAD>ssh</TM_MAD><TYPE>1</TYPE><TEMPLATE/>"
            f"</DATASTORE><DATASTORE><ID>102</ID><NAME>img</NAME><DS_MAD>{ds_mad}</DS_MAD><TM_MAD>onelun</TM_MAD><TYPE>0</TYPE>"
            f"<TEMPLATE>{template}</TEMPLATE></DATASTORE></DATASTORE_POOL>"
        )


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    with serving(tmp_path) as (oned, auth):
        oned.pools["hostpool"] = f"<HOST_POOL>{show('onehost-show-host01')}</HOST_POOL>"
        front = Front(oned, auth)
        front.datastore()
        yield front


def system(front: Front, pools: str, disk_type: str = "<DISK_TYPE>BLOCK</DISK_TYPE>") -> None:
    """A system datastore whose TM is onelun, beside what is there."""
    text = front.oned.pools["datastorepool"]
    there = "<NAME>system</NAME><DS_MAD/><TM_MAD>ssh</TM_MAD><TYPE>1</TYPE><TEMPLATE/>"
    ours = f"<NAME>sys</NAME><DS_MAD/><TM_MAD>onelun</TM_MAD><TYPE>1</TYPE><TEMPLATE>{disk_type}{pools}</TEMPLATE>"
    assert there in text
    front.oned.pools["datastorepool"] = text.replace(there, ours)


@pytest.mark.parametrize(
    ("pools", "settings", "said"),
    [
        ("<ONELUN_POOLS>nas1/tank</ONELUN_POOLS>", {}, ""),
        ("", {"pools": ("nas1/tank",)}, ""),
        ("", {}, "system datastore sys does not say where volatile disks and checkpoints live: set ONELUN_POOLS="),
        ("<ONELUN_POOLS>tank</ONELUN_POOLS>", {}, "ONELUN_POOLS of datastore sys has 'tank': it should be NAS/POOL"),
        ("<ONELUN_POOLS>nas1/lake</ONELUN_POOLS>", {}, "pool nas1/lake of datastore sys: "),
    ],
)
async def test_a_system_datastore_of_onelun_has_a_pool_too(
    front: Front, pools: str, settings: dict[str, object], said: str
) -> None:
    system(front, pools)

    told = await front.checking(**settings).datastores(WANTED)

    assert len(told) == (1 if said else 0)
    assert all(sentence.startswith(said) for sentence in told)


@pytest.mark.parametrize("disk_type", ["", "<DISK_TYPE>FILE</DISK_TYPE>"])
async def test_a_system_datastore_whose_volatile_disks_would_be_files_is_told(front: Front, disk_type: str) -> None:
    system(front, "<ONELUN_POOLS>nas1/tank</ONELUN_POOLS>", disk_type)

    [told] = await front.checking().datastores(WANTED)

    assert told.startswith("system datastore sys has no DISK_TYPE = BLOCK, and VMs with volatile disks do not start: ")


async def test_where_all_is_well_nothing_is_said(front: Front) -> None:
    checking = front.checking()

    assert await checking.release() == []
    assert await checking.hosts() == []
    assert await checking.datastores(WANTED) == []


async def test_a_release_that_oned_is_not_is_told(front: Front) -> None:
    told = await front.checking(opennebula_version="6.10").release()

    assert told == ['oned is 7.5.0, and frontend.opennebula_version says 6.10: make it "7.5.0"']


async def test_a_host_that_no_agent_stands_for_is_named(front: Front) -> None:
    told = await front.checking(hosts={"kvm1": "node1"}).hosts()

    assert len(told) == 1
    assert told[0].startswith("nobody serves the host 'host01': name its agent in frontend.hosts")


async def test_a_host_whose_agent_is_away_is_named(front: Front) -> None:
    front.cloud.fail("node1", ListDev, Unreachable("no agent called node1 is connected to the broker"))

    assert await front.checking().hosts() == ["host host01: no agent called node1 is connected to the broker"]


async def test_a_pool_that_nobody_serves_is_named(front: Front) -> None:
    front.datastore(pools="nas1/tank nas2/tank")
    front.cloud.dead.add("nas2")

    told = await front.checking(nas=("nas1", "nas2")).datastores(WANTED)

    assert len(told) == 1
    assert told[0].startswith("pool nas2/tank of datastore img: ")


async def test_a_pool_in_maintenance_is_named(front: Front) -> None:
    front.datastore(pools="nas1/tank")
    front.cloud.maintenance["nas1", "tank"] = "pool tank is in maintenance (new disks): nothing new is placed there"

    told = await front.checking().datastores(WANTED)

    assert told == [
        "pool nas1/tank of datastore img: pool tank is in maintenance (new disks): nothing new is placed there"
    ]


async def test_a_nas_that_the_configuration_does_not_name_is_told(front: Front) -> None:
    told = await front.checking(nas=()).datastores(WANTED)

    assert told == ["frontend.nas does not name nas1, which datastore img uses: add it"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"CLONE_TARGET_SSH": None},
            "datastore img lacks CLONE_TARGET_SSH=SELF: add them with `onedatastore update 102`",
        ),
        ({"LN_TARGET": "SYSTEM"}, "datastore img lacks LN_TARGET=NONE: add them with `onedatastore update 102`"),
        (
            {"ds_mad": "fs"},
            "datastore img has DS_MAD fs and TM_MAD onelun: onelun's image datastores have onelun for both",
        ),
        (
            {"ONELUN_THIN": "yes"},
            "datastore img has the attribute ONELUN_THIN, which onelun does not know: did you mean ONELUN_",
        ),
        ({"ONELUN_WIPE": "all"}, "ONELUN_WIPE of datastore img is 'all': it should be none or discard or zero"),
        ({"pools": "tank"}, "ONELUN_POOLS of datastore img has 'tank': it should be NAS/POOL"),
        ({"pools": None}, "datastore img does not say where it lives: set ONELUN_POOLS="),
    ],
)
async def test_a_datastore_that_cannot_work_is_told(
    front: Front, changes: dict[str, str | None], sentence: str
) -> None:
    front.datastore(**changes)  # type: ignore[arg-type]

    told = await front.checking().datastores(WANTED)

    assert any(each.startswith(sentence) for each in told), told


async def test_a_oned_that_is_away_is_an_error(tmp_path: Path, front: Front) -> None:
    api = Api("http://127.0.0.1:1/RPC2", str(tmp_path / "one_auth"))
    checking = Checking(Frontend(cloud="3f0c5a4e-6f0f-4b62-9d39-2d1f6a1c7b11"), api, front.cloud, "onelun")

    with pytest.raises(Unreachable):
        await checking.hosts()
