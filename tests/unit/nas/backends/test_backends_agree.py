"""Any sequence of steps ends the same in memory and in files."""

import asyncio
import shutil
import tempfile
import uuid as uuids

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from onelun.errors import OnelunError
from onelun.model import Kind, Owner, Snapshot, State, Volume
from onelun.nas.backends.file.backend import FileBackend
from onelun.nas.backends.memory.backend import MemoryBackend

AGENT = "0b6a4e0e-57a1-4d7c-9a64-4d9d5f1d7a10"
PLAIN = Owner(kind=Kind.PLAIN)
BLOCK = 512

# Few of each, so that steps meet.
names = st.sampled_from(["one-1", "one-10", "one-1-0", "a..b", ".new-x"])
uuids_of_few = st.sampled_from([str(uuids.UUID(int=number)) for number in range(1, 5)])
sizes = st.sampled_from([BLOCK, 2 * BLOCK, 9 * BLOCK, 0, 100])
states = st.sampled_from(list(State))
moments = st.sampled_from(["s1", "s2", "a/b"])


def silent(done, total):
    pass


class Agree(RuleBasedStateMachine):
    """The same step on both, compared."""

    def __init__(self):
        super().__init__()
        self.directory = tempfile.mkdtemp(prefix="onelun-agree-")
        self.loop = asyncio.new_event_loop()
        self.memory = MemoryBackend("tank", total_bytes=1 << 50)
        self.files = FileBackend("tank", self.directory)
        self.both("open", AGENT, None)

    def teardown(self):
        self.loop.close()
        shutil.rmtree(self.directory)

    def both(self, method, *args, **kwargs):
        outcomes = [self.one(backend, method, *args, **kwargs) for backend in (self.memory, self.files)]
        assert outcomes[0] == outcomes[1], method
        return outcomes[0]

    def one(self, backend, method, *args, **kwargs):
        try:
            result = self.loop.run_until_complete(getattr(backend, method)(*args, **kwargs))
        except OnelunError as error:
            return type(error)
        return plain(result)

    @rule(name=names, uuid=uuids_of_few, size=sizes)
    def create(self, name, uuid, size):
        self.both("create", name, uuid, size, PLAIN)

    @rule(
        origin=names,
        origin_uuid=uuids_of_few,
        name=names,
        uuid=uuids_of_few,
        size=sizes,
        snapshot=st.none() | moments,
    )
    def clone(self, origin, origin_uuid, name, uuid, size, snapshot):
        self.both("clone", said(origin, origin_uuid), name, uuid, size, PLAIN, silent, snapshot=snapshot)

    @rule(name=names, uuid=uuids_of_few, snapshot=moments)
    def snapshot(self, name, uuid, snapshot):
        self.both("snapshot", said(name, uuid), snapshot)

    @rule(name=names, uuid=uuids_of_few, snapshot=moments)
    def revert(self, name, uuid, snapshot):
        self.both("revert", said(name, uuid), snapshot)

    @rule(name=names, uuid=uuids_of_few, snapshot=moments)
    def delete_snapshot(self, name, uuid, snapshot):
        self.both("delete_snapshot", said(name, uuid), snapshot)

    @rule(uuid=uuids_of_few, byte=st.integers(0, 255))
    def write(self, uuid, byte):
        found = self.both("find_uuid", uuid)
        if isinstance(found, Volume):
            self.memory.write(found, 0, bytes([byte]) * BLOCK)
            with open(self.files.device(found), "r+b") as data:
                data.write(bytes([byte]) * BLOCK)

    @rule(uuid=uuids_of_few)
    def read(self, uuid):
        found = self.both("find_uuid", uuid)
        if isinstance(found, Volume):
            with open(self.files.device(found), "rb") as data:
                assert data.read() == self.memory.read(found, 0, found.size_bytes)

    @rule(uuid=uuids_of_few, replace=st.none() | uuids_of_few)
    def publish(self, uuid, replace):
        self.both("publish", uuid, replace=replace)

    @rule(name=names, uuid=uuids_of_few, state=states, epoch=st.integers(0, 9))
    def record(self, name, uuid, state, epoch):
        self.both("record", name, uuid, lambda now: msgspec.structs.replace(now, state=state, last_epoch=epoch))

    @rule(name=names, uuid=uuids_of_few, size=sizes)
    def grow(self, name, uuid, size):
        self.both("grow", said(name, uuid), size)

    @rule(name=names, uuid=uuids_of_few)
    def trash(self, name, uuid):
        self.both("trash", said(name, uuid))

    @rule(name=names, uuid=uuids_of_few)
    def destroy(self, name, uuid):
        self.both("destroy", said(name, uuid))

    @rule(older_than=st.sampled_from([0.0, float(2**40)]))
    def purge(self, older_than):
        self.both("purge", older_than)

    @rule(name=names, uuid=uuids_of_few)
    def find(self, name, uuid):
        self.both("find", name)
        self.both("find_uuid", uuid)

    @rule()
    def restart(self):
        self.files = FileBackend("tank", self.directory)
        self.both("open", AGENT, None)

    @invariant()
    def both_have_the_same_volumes(self):
        volumes = self.both("volumes")
        for volume in volumes:
            self.both("snapshots", volume)
        visible = [volume.name for volume in volumes if volume.state in (State.READY, State.DELETING)]
        assert len(visible) == len(set(visible))


def said(name, uuid):
    """What a caller believes of a volume."""
    return Volume(pool="tank", name=name, uuid=uuid, size_bytes=BLOCK, state=State.READY, owner=PLAIN)


def plain(result):
    """The result without the clock's part, and lists without an order."""
    if isinstance(result, list):
        return sorted((plain(one) for one in result), key=lambda one: one.uuid if isinstance(one, Volume) else one.name)
    if isinstance(result, Snapshot):
        return msgspec.structs.replace(result, made_at=0.0, used_bytes=0)
    return msgspec.structs.replace(result, made_at=0.0) if isinstance(result, Volume) else result


TestAgree = Agree.TestCase
TestAgree.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
