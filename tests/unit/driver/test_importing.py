"""Why an image could not be written: the NAS is asked, because the initiator's side cannot tell."""

from types import SimpleNamespace

import pytest

from onelun.driver import importing
from onelun.errors import CommandFailed, OutOfSpace
from onelun.naming import Source
from onelun.rpc.message import PoolCapacityIs

SOURCE = Source("nas1", "tank", "one-1")


@pytest.mark.parametrize(
    ("free", "maintenance", "told"),
    [
        (0, None, OutOfSpace),
        (1, None, CommandFailed),
        # An import that had begun goes on in maintenance; there is no room told then, which explains nothing.
        (0, "pool tank is in maintenance: nothing new is placed there", CommandFailed),
    ],
)
async def test_a_write_error_is_told_as_a_full_pool_only_when_the_pool_is_full(monkeypatch, free, maintenance, told):
    async def fail(*args):
        raise CommandFailed("qemu-img: error while writing")

    async def ask(nas, request, kind, **more):
        return PoolCapacityIs(total_bytes=10, used_bytes=9, free_bytes=free, maintenance=maintenance)

    monkeypatch.setattr(importing, "_write", fail)

    with pytest.raises(told):
        await importing.write(SimpleNamespace(ask=ask), SOURCE, content=None, leased=None)
