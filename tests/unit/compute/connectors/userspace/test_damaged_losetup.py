"""What losetup says, damaged: found by scripts/fuzz."""

from __future__ import annotations

import pytest

from onelun import command
from onelun.compute.connectors.userspace import loop
from onelun.errors import CommandFailed


@pytest.mark.parametrize("said", ["", "\0", "/dev/../..", "/dev/no-such-device", "x" * 300])
async def test_a_device_that_cannot_be_is_an_error_of_losetup(monkeypatch, said):
    async def run(*argv, **how):
        return command.Result(0, f"{said}\n", "")

    monkeypatch.setattr(command, "run", run)

    with pytest.raises(CommandFailed, match="losetup makes only empty devices of /file"):
        await loop.attach("/file", readonly=False)
