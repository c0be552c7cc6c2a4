"""Who may ask a host what: a NAS that was broken into tries everything, through a real broker, at a real compute agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from tests.support.raw import EXCHANGE, Raw
from tests.unit.compute.conftest import INITIATOR, SECRET, Bench

from onelun.deadline import Deadline
from onelun.errors import Forbidden, OnelunError
from onelun.model import Target
from onelun.rpc import message as m
from onelun.rpc.journal import Journal
from onelun.rpc.server import Server

from .conftest import LIMITS, Agents

VM = "/var/lib/one/datastores/103/5"
HERS = "iqn.2026-11.io.onelun.nas2:tank.one-1.e1"
SEEDS = "iqn.2001-04.com.nas-0-0-vol1"
LUN = {"address": "192.0.2.9", "port": 3260, "user": "u", "secret": "s", "lun": 1, "size_bytes": 512}
VOLUME = {"nas": "nas2", "zpool": "tank", "zvol": "one-1", "uuid": "u", "size_bytes": 512}

# What only a frontend asks a host, with words that are the NAS's own wherever one is named.
FRONTENDS = [
    m.ListDir(path=VM),
    m.ReadFile(path=VM, name="vm.xml"),
    m.PutEntry(path=VM, entry=m.Entry(name="x", kind="file")),
    m.RemoveEntry(path=VM),
    m.StoreFile(path=VM, name="checkpoint", **VOLUME),  # type: ignore[arg-type]
    m.FetchFile(path=VM, name="checkpoint", **VOLUME),  # type: ignore[arg-type]
    m.WriteBackup(path=VM, name="backup/disk.0.0", target=HERS, **LUN),  # type: ignore[arg-type]
    m.FreezeGuest(domain="one-5", hold_s=60),
    m.ThawGuest(domain="one-5"),
]


class Served(Bench):
    """The host node1, on the broker, with a volume of nas1 attached for a VM."""

    attached: m.SetZvol

    def state(self) -> tuple[list[str], list[str]]:
        """The names of devices, and where the VM's disk leads."""
        return self.names(), [str(Path(self.disk()).readlink())]


@pytest.fixture
async def host(agents: Agents, tmp_path: Path) -> AsyncIterator[Served]:
    bench = Served(tmp_path)
    await bench.agent.start()
    link = await agents.link("compute.node1", heartbeat_s=2)
    journal = Journal(str(tmp_path / "journal"))
    server = Server(link, "node1", journal, bench.agent.handlers(), role="compute", limits=LIMITS, initiator=INITIATOR)
    task = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(90):
            await server.serving.wait()
        bench.attached = bench.offer(link=bench.disk())
        nas1 = await agents.client("nas.nas1")
        await nas1.ask("node1", bench.attached, deadline=Deadline.after(60))
        yield bench
    finally:
        task.cancel()
        await asyncio.wait({task}, timeout=90)
        await journal.close()
        bench.agent.close()


def name(request: m.Request | type[m.Request]) -> str:
    return m.name_of(request if isinstance(request, type) else type(request))


def body(request: m.Request) -> dict[str, object]:
    return dict(json.loads(m.encode(request)))


def test_everything_that_a_nas_may_not_ask_is_tried():
    closed = {verb.request for verb in m.VERBS if verb.role == "compute" and "nas" not in verb.callers}

    assert {type(request) for request in FRONTENDS} == closed


def test_nobody_but_a_frontend_commands_a_nas_and_no_host_asks_anybody():
    assert not [name(verb.request) for verb in m.VERBS if "compute" in verb.callers]
    assert not [name(verb.request) for verb in m.VERBS if verb.role == "nas" and "nas" in verb.callers]


@pytest.mark.parametrize("request_", FRONTENDS, ids=name)
async def test_a_nas_asks_nothing_that_is_the_frontends(agents: Agents, host: Served, request_: m.Request):
    nas2 = await agents.client("nas.nas2")

    with pytest.raises(Forbidden, match=rf"nas\.nas2 may not ask {name(request_)}: a frontend may"):
        await nas2.ask("node1", request_, deadline=Deadline.after(60))


OTHERS: dict[str, Callable[[m.SetZvol, Bench], m.Request]] = {
    "attach another's target": lambda hers, _: hers,
    "attach another's target in capitals": lambda hers, _: msgspec.structs.replace(
        hers, nas="nas2", target=hers.target.upper()
    ),
    "attach its own as another's": lambda hers, _: msgspec.structs.replace(hers, target=HERS),
    "attach what is nobody's": lambda hers, _: msgspec.structs.replace(hers, nas="nas2", target=SEEDS),
    "detach another's": lambda hers, _: m.TearDown(target=hers.target),
    "detach another's by force": lambda hers, _: m.TearDown(target=hers.target, force=True),
    "detach another's link": lambda hers, host: m.TearDown(target=hers.target, link=host.disk(), keep_device=True),
    "grow another's": lambda hers, _: m.GrowDev(target=hers.target, size_bytes=2 << 20),
    "drop all of another's": lambda hers, _: m.SyncZvols(nas="nas1", held=()),
    "hold another's": lambda hers, host: m.SyncZvols(nas="nas2", held=(host.held(hers),)),
    "fence another's": lambda hers, _: m.SyncZvols(nas="nas2", held=(), fenced=(HERS, hers.target)),
}


@pytest.mark.parametrize("what", OTHERS)
async def test_a_nas_speaks_of_its_own_targets_alone(agents: Agents, host: Served, what: str):
    before = host.state()
    nas2 = await agents.client("nas.nas2")

    with pytest.raises(Forbidden, match=r"nas\.nas2 may not speak of"):
        await nas2.ask("node1", OTHERS[what](host.attached, host), deadline=Deadline.after(60))

    assert host.state() == before


async def test_a_nas_cannot_turn_the_link_of_anothers_disk_to_its_own_volume(agents: Agents, host: Served):
    before = host.state()
    theirs = host.offer("evil", link=host.disk())
    own = "iqn.2026-11.io.onelun.nas2:tank.evil.e1"
    host.targets[own] = msgspec.structs.replace(host.targets.pop(theirs.target), iqn=own)
    nas2 = await agents.client("nas.nas2")

    with pytest.raises(OnelunError, match="is attached here and none of nas2's") as raised:
        await nas2.ask("node1", msgspec.structs.replace(theirs, target=own, nas="nas2"), deadline=Deadline.after(60))

    assert raised.value.code == "conflict"
    assert host.state() == before


@pytest.mark.parametrize(
    ("what", "asked"),
    [
        ("all of a frontend's", None),
        ("another's target", {"action": "set_zvol", "nas": "nas1", "target": HERS.replace("nas2", "nas1")}),
        ("another's detach", {"action": "tear_down", "target": HERS.replace("nas2", "nas1").upper()}),
        ("a link", {"action": "tear_down", "target": SEEDS, "link": f"{VM}/disk.0"}),
        ("force", {"action": "tear_down", "target": SEEDS, "force": True}),
        ("a name", {"action": "set_zvol", "nas": "nas1", "target": SEEDS, "zpool": "tank", "zvol": "one-1"}),
        ("an address", {"action": "set_zvol", "nas": "nas1", "target": SEEDS, "address": "192.0.2.9"}),
        ("another's list", {"action": "sync_zvols", "nas": "nas1", "held": []}),
    ],
)
async def test_a_nas_that_hides_who_it_is_may_ask_less(
    host: Served, urls: dict[str, str], what: str, asked: dict[str, object] | None
):
    before = host.state()

    with Raw(urls["nas.nas2"]) as hidden:
        for one in [body(request) for request in FRONTENDS] if asked is None else [asked]:
            [(_, reply)] = await asyncio.to_thread(hidden.ask, "node1", one, grace_s=0)
            assert (reply["status"], reply["code"]) == ("error", "forbidden"), reply

    assert host.state() == before


async def test_the_seeds_nas_still_attaches_lists_and_detaches_what_is_its_own(host: Served, urls: dict[str, str]):
    path = host.place / "seed"
    path.write_bytes(bytes(1 << 20))
    host.targets[SEEDS] = Target(
        iqn=SEEDS,
        device=str(path),
        uuid=host.attached.uuid or "",
        size_bytes=1 << 20,
        initiator=INITIATOR,
        user="",
        secret="",
    )

    with Raw(urls["nas.nas2"]) as seed:
        said = [
            (await asyncio.to_thread(seed.ask, "node1", asked, grace_s=0))[0][1]
            for asked in (
                {"action": "set_zvol", "target": SEEDS, "nas": "nas-0-0"},
                {"action": "list_dev"},
                {"action": "tear_down", "target": SEEDS},
            )
        ]

    assert [(reply["action"], reply["status"]) for reply in said] == [
        ("zvol_attached", "success"),
        ("dev_list", "success"),
        ("zvol_detached", "success"),
    ]
    assert SEEDS in [row["target"] for row in said[1]["body"]]


async def test_a_host_tells_nobody_a_secret(agents: Agents, host: Served):
    for user in ("nas.nas2", "nas.nas1", "frontend"):
        client = await agents.client(user)
        listed = await client.ask("node1", m.ListDev(), deadline=Deadline.after(60))
        assert isinstance(listed, m.DevList)
        assert [row["target"] for row in listed.body] == [host.attached.target]
        assert SECRET not in str(listed)


async def test_a_request_is_its_callers_also_for_whoever_has_read_its_id(
    agents: Agents, host: Served, urls: dict[str, str]
):
    nas1 = await agents.client("nas.nas1")
    asked = m.TearDown(target=host.attached.target, keep_device=True)
    await nas1.ask("node1", asked, deadline=Deadline.after(60), id="known")

    with Raw(urls["nas.nas2"]) as other:
        for theirs in (m.Status(id="known"), m.Cancel(id="known")):
            for user in ({"user_id": "nas.nas2"}, {}):
                [(_, reply)] = await asyncio.to_thread(other.ask, "node1", body(theirs), grace_s=0, **user)
                if isinstance(theirs, m.Status):
                    assert reply["code"] == "forbidden", reply
                assert "reply" not in reply
        own = body(m.TearDown(target=HERS, keep_device=True))
        [(_, replayed)] = await asyncio.to_thread(
            other.ask, "node1", own, message_id="known", user_id="nas.nas2", grace_s=0
        )

    assert replayed["error"] == "the request known is another caller's"


async def test_a_request_that_is_replayed_by_another_does_nothing(agents: Agents, host: Served, urls: dict[str, str]):
    nas1 = await agents.client("nas.nas1")
    detach = m.TearDown(target=host.attached.target)
    await nas1.ask("node1", detach, deadline=Deadline.after(60), id="first")
    await nas1.ask("node1", host.attached, deadline=Deadline.after(60))
    before = host.state()

    with Raw(urls["nas.nas2"]) as other:
        for id_, user in (
            ("first", {}),
            ("first", {"user_id": "nas.nas2"}),
            ("fresh", {}),
            ("fresh2", {"user_id": "nas.nas2"}),
        ):
            [(_, reply)] = await asyncio.to_thread(other.ask, "node1", body(detach), message_id=id_, grace_s=0, **user)
            assert reply["code"] == "forbidden"
        assert await asyncio.to_thread(other.outcome, EXCHANGE, "node1", m.encode(detach), user_id="nas.nas1") == "406"

    again = await nas1.ask("node1", detach, deadline=Deadline.after(60), id="first")
    assert again == m.ZvolDetached()
    assert host.state() == before


async def test_a_message_that_is_larger_than_any_request_is_refused(host: Served, urls: dict[str, str]):
    huge = body(m.ListDir(path=VM)) | {"padding": "x" * m.LONGEST}

    with Raw(urls["frontend"]) as caller:
        [(_, reply)] = await asyncio.to_thread(caller.ask, "node1", huge, grace_s=0, user_id="frontend")

    assert reply["code"] == "protocol"
    assert reply["error"].endswith(f"bytes: no request has more than {m.LONGEST}")
