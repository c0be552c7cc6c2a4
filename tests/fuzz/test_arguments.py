"""What oned calls drivers with, damaged: every action ends with one sentence for oned, and a refusal has changed nothing."""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from tests.support import recorded
from tests.support.fake_nas import GIB, Cloud, Placement, Volume
from tests.support.fuzzing import Loop, attacks
from tests.support.mutation import HOSTILE, as_argument, as_bytes, blobs, documents, texts
from tests.support.recorded import FRONT_END, HOSTS, RECORDINGS, RELEASES, Recorded, mapped

from onelun.config import Frontend, Limits
from onelun.driver.action import ACTIONS, perform
from onelun.driver.api import Api
from onelun.driver.running import Call, Context
from onelun.errors import OnelunError
from onelun.frontend.framing import frame, outcome_frames, read_call
from onelun.model import Kind, Owner

CLOUD = "3f0c5a4e-6f0f-4b62-9d39-2d1f6a1c7b11"
OTHERS = Owner(kind=Kind.IMAGE, cloud="4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01", image_id=3, regtime=1)
# What ends a thing may have ended it before it failed; it ends the rest when it is repeated.
ENDING = (
    "tm/delete",
    "tm/mv",
    "tm/mvds",
    "tm/postmigrate",
    "tm/failmigrate",
    "tm/postbackup",
    "tm/postbackup_live",
    "datastore/rm",
)
_LINES = re.compile(
    r"(?:(?:ERROR|INFO|WARN|WARNING|DEBUG): .*\n)*(?:ERROR MESSAGE --8<------\n)?[^\n]+\n(?:ERROR MESSAGE ------>8--\n)?"
)


class Given:
    """One recorded call: how `release` makes it, and whether its document is encoded."""

    def __init__(self, release: str, name: str, argv: tuple[str, ...], document: str, *, encoded: bool = True) -> None:
        self.release, self.name, self.argv = release, name, argv
        self.document, self._encoded = document, encoded
        # Up to 6.6 a datastore action's document stands before its id.
        self._first = bool(document) and name.startswith("datastore/") and recorded.number(release) <= (6, 6)

    def call(self, document: bytes, argv: tuple[str, ...]) -> Recorded:
        stdin = base64.b64encode(document) if self._encoded else document
        if self._first:
            return Recorded(self.name, (stdin.decode("latin-1"), *argv), b"")
        return Recorded(self.name, argv, stdin)


def given_calls() -> Iterator[Given]:
    for release in RELEASES:
        for path in sorted(RECORDINGS.glob("*.json")):
            room, name = path.stem.split(".")[:2]
            argv = tuple(mapped(word) for word in json.loads(path.read_text())["argv"])
            with_document = path.with_suffix("").with_suffix(path.with_suffix("").suffix + ".stdin.xml")
            text = mapped(with_document.read_text()) if with_document.exists() else ""
            plain = name.endswith(("backup", "backup_live")) and room == "tm"
            if room == "tm" and recorded.number(release) <= (3, 4) and not text:
                argv = argv[:-2]
            yield Given(release, f"{room}/{name}", argv[-1:] if room == "datastore" else argv, text, encoded=not plain)


CALLS = tuple(given_calls())


def test_every_action_is_attacked() -> None:
    assert {call.name for call in CALLS} >= set(ACTIONS) - {"datastore/export", "datastore/increment_flatten"}


class Shown(Api):
    """oned's API without its HTTP: recorded documents, or the one that is given."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", "/dev/null")
        self.vm_document = recorded.show("vm-0.lcm-12")
        self._other = {
            "one.datastore.info": recorded.show("onedatastore-show-img_onelun"),
            "one.image.info": recorded.show("oneimage-show-t-os"),
            "one.hostpool.info": "<HOST_POOL/>",
        }

    def _post(self, method: str, arguments: tuple[str | int, ...]) -> object:
        return [True, self._other.get(method, self.vm_document), 0]

    async def _ask(self, method: str, *arguments: str | int) -> list[Any]:
        return list(self._post(method, arguments))  # type: ignore[call-overload]


class World:
    """A front-end whose NAS agents and hosts are in memory, and made anew for each input."""

    def __init__(self, place: Path) -> None:
        # What tells the sizes of disks to OpenNebula's monitoring.
        (place / "lib/sh").mkdir(parents=True)
        (place / "lib/sh/scripts_common.sh").touch()
        self._place = place

    def cloud(self) -> Cloud:
        cloud = Cloud({"nas1": {"tank": 100 * GIB}, "nas2": {"tank": 100 * GIB}})
        for image in (3, 4, 8, 13):
            owner = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=image, regtime=1795245258)
            cloud.volumes["nas1", "tank", f"one-{image}"] = Volume(64 << 20, owner)
        disk = Owner(kind=Kind.DISK, cloud=CLOUD, vm_id=0, disk_id=0)
        snapshots = {"snap-0": "a", "snap-1": "b"}
        cloud.volumes["nas1", "tank", "one-3-0-0"] = Volume(96 << 20, disk, hosts={"node1": "/x"}, snapshots=snapshots)
        cloud.placements[0, 0] = Placement(
            ("nas1", "tank", "one-3-0-0"), "/var/lib/one/datastores/103/0/disk.0", "node1"
        )
        cloud.volumes["nas2", "tank", "others"] = Volume(64 << 20, OTHERS, uuid="others")
        return cloud

    def context(self, release: str | None, cloud: Cloud, api: Api | None) -> Context:
        config = Frontend(
            cloud=CLOUD,
            opennebula_version=release,
            nas=("nas1", "nas2"),
            names=(FRONT_END,),
            hosts=dict(HOSTS),
            owner="0",
            staging=str(self._place),
            remotes=str(self._place / "remotes"),
        )
        return Context(config, Limits(accept_s=0.1, finish_s=5.0, copy_s=5.0), cloud, api)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("world")
        patch.setenv("ONE_LOCATION", str(place))
        yield World(place)


def through_the_socket(call: Recorded) -> Call:
    """The call as it reaches the frontend: in frames that the stub makes."""

    async def read() -> Call:
        reader = asyncio.StreamReader()
        words = (b"1", str(uuid.uuid4()).encode(), b"0", call.name.encode(), *(as_bytes_of(word) for word in call.argv))
        reader.feed_data(frame(b"C", b"\0".join(words)) + frame(b"I", call.stdin) + frame(b"G", b""))
        return await read_call(reader)

    return asyncio.run(read()) if not _RUNNING else _RUNNING[0].run(read())


_RUNNING: list[Loop] = []


def as_bytes_of(word: str) -> bytes:
    return word.encode("utf-8", "surrogateescape")


def state_of(cloud: Cloud) -> Any:
    return {key: (v.size, v.owner, v.uuid, dict(v.snapshots)) for key, v in cloud.volumes.items()}


def run(
    loop: Loop, world: World, release: str | None, recorded_call: Recorded, api: Api | None, *, undoes: bool = True
) -> bool:
    """Whether the action succeeded; what oned gets was looked at. With `undoes`, what fails has changed nothing."""
    _RUNNING[:] = [loop]
    call = through_the_socket(recorded_call)
    assert call.argv == recorded_call.argv
    cloud = world.cloud()
    before = copy.deepcopy(state_of(cloud))
    outcome = loop.run(perform(call, world.context(release, cloud, api)), within_s=60)
    outcome_frames(outcome)
    said = outcome.stderr.decode()
    assert "internal error" not in said, said
    assert "Traceback" not in said
    after = state_of(cloud)
    assert after["nas2", "tank", "others"] == before["nas2", "tank", "others"]
    if outcome.status != 0:
        assert outcome.stdout == b""
        assert _LINES.fullmatch(said), said
        if undoes and call.name not in ENDING:
            assert after == before
    return outcome.status == 0


WORDS = st.lists(
    st.tuples(
        st.sampled_from(["drop", "double", "swap", "replace", "inside", "add"]),
        st.integers(0, 60),
        st.integers(0, 60),
        st.integers(0, 999),
    ),
    min_size=1,
    max_size=3,
)


def changed(argv: tuple[str, ...], steps: Any) -> tuple[str, ...]:
    words = list(argv)
    for kind, at, other, put in steps:
        if not words:
            break
        at, other, hostile = at % len(words), other % len(words), HOSTILE[put % len(HOSTILE)]
        match kind:
            case "drop":
                del words[at]
            case "double":
                words.insert(other, words[at])
            case "swap":
                words[at], words[other] = words[other], words[at]
            case "replace":
                words[at] = hostile
            case "add":
                words.append(hostile)
            case "inside":
                cut = put % (len(words[at]) + 1)
                words[at] = words[at][:cut] + hostile + words[at][cut + put % 3 :]
    return tuple(as_argument(word) for word in words)


APIS = st.sampled_from([True, False])


@attacks("arguments", st.sampled_from(CALLS), WORDS, APIS)
def test_arguments_of_any_action(loop: Loop, tools, world: World, call: Given, steps, asks: bool) -> bool:
    tools.say("", "no", 1)
    made = call.call(call.document.encode(), changed(call.argv, steps))

    return run(loop, world, call.release, made, Shown() if asks else None)


WITH_DOCUMENT = tuple(call for call in CALLS if call.document)


@st.composite
def damaged(draw: st.DrawFn, *, still_xml: bool) -> tuple[Given, bytes]:
    call = draw(st.sampled_from(WITH_DOCUMENT))
    kind = documents if still_xml else texts
    return call, as_bytes(draw(kind([call.document])))


@attacks("arguments", damaged(still_xml=True), APIS)
def test_documents_of_any_action(loop: Loop, tools, world: World, given, asks: bool) -> bool:
    call, document = given
    tools.say("", "no", 1)

    return run(loop, world, call.release, call.call(document, call.argv), Shown() if asks else None)


@attacks("arguments", damaged(still_xml=False))
def test_documents_that_are_none(loop: Loop, tools, world: World, given) -> bool:
    call, document = given
    tools.say("", "no", 1)

    return run(loop, world, None, call.call(document, call.argv), None)


@attacks(
    "arguments",
    st.sampled_from(WITH_DOCUMENT),
    st.binary(max_size=300),
    blobs([base64.b64encode(b"<VM><ID>7</ID></VM>")]),
)
def test_stdin_that_is_no_document(loop: Loop, tools, world: World, call: Given, some: bytes, almost: bytes) -> bool:
    tools.say("", "no", 1)
    ended = [run(loop, world, call.release, Recorded(call.name, call.argv, stdin), None) for stdin in (some, almost)]

    return any(ended)


@attacks(
    "arguments",
    st.sampled_from([call for call in CALLS if call.name.startswith("tm/")]),
    documents([recorded.show("vm-0.lcm-12"), recorded.show("vm-1.lcm-15")]),
)
def test_what_oned_tells_of_the_vm(loop: Loop, tools, world: World, call: Given, shown: str) -> bool:
    tools.say("", "no", 1)
    api = Shown()
    # What comes out of XML-RPC has no halves of surrogate pairs.
    api.vm_document = shown.encode("utf-8", "replace").decode()

    return run(loop, world, call.release, call.call(call.document.encode(), call.argv), api)


FRAMES = (
    frame(b"C", b"1\0" + str(uuid.UUID(int=7)).encode() + b"\0000\0datastore/stat\0102")
    + frame(b"I", b"PD94")
    + frame(b"G", b""),
    frame(b"C", b"1\0" + str(uuid.UUID(int=7)).encode() + b"\0" + b"9" * 5000 + b"\0tm/ln\0a:b") + frame(b"G", b""),
)


@attacks("arguments", blobs(FRAMES))
def test_frames_of_a_stub(loop: Loop, content: bytes) -> None:
    async def read() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(content)
        reader.feed_eof()
        try:
            await read_call(reader)
        except asyncio.IncompleteReadError:
            raise OnelunError("the stub is gone") from None

    loop.run(read())
