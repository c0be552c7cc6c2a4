"""What zfs and zpool print, damaged: found by scripts/fuzz."""

import pytest

from onelun import command
from onelun.errors import ProtocolError
from onelun.model import Kind, Owner, State, Volume
from onelun.nas.backends.zfs.backend import ZfsBackend
from onelun.nas.backends.zfs.command import Zfs
from onelun.nas.backends.zfs.properties import COLUMNS, Facts, Value, rows, settings

UUID = "5a0f1f1e-9d3e-4a0b-8a77-0d5f1d7a1000"
VOLUME = Volume("tank", "one-7", UUID, 1 << 30, State.READY, Owner(kind=Kind.IMAGE, image_id=7))


@pytest.fixture
def printed(monkeypatch):
    """Have every program print that."""

    def say(text):
        async def run(*argv, **_):
            return command.Result(0, text, "")

        monkeypatch.setattr(command, "run", run)

    return say


@pytest.mark.parametrize("text", ["", "ONLINE\n", "ONLINE\toff\tmore\n"])
async def test_facts_of_a_zpool_that_are_too_few_or_too_many_are_refused(printed, text):
    printed(text)

    with pytest.raises(ProtocolError, match="not health, readonly of rpool"):
        await Zfs("tank", "rpool/onelun").zpool_facts("health", "readonly")


@pytest.mark.parametrize("text", ["a\n", "a\t1\tb\n", "\n"])
def test_a_row_with_other_columns_is_refused(text):
    with pytest.raises(ProtocolError, match="has not 2 columns"):
        list(rows(text, 2))


@pytest.mark.parametrize("text", ["none", "1G", "9" * 5000, "\u0663"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(ProtocolError, match="used of rpool"):
        Facts("rpool", {"used": Value(text, "-")}).number("used")


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        ("past", "x"),
        ("past", "9" * 17),
        ("trashed_at", "soon"),
        ("trashed_at", "nan"),
        ("made_at", "inf"),
        ("vm", "9" * 5000),
        ("last_epoch", "\u0663"),
    ],
)
async def test_a_volume_with_a_damaged_fact_is_left_alone(printed, fact, text):
    told = dict(setting.split("=", 1) for setting in settings(VOLUME, **{fact: text}))
    told |= {"type": "volume", "volsize": "1073741824"}
    printed("".join(f"rpool/onelun/one-7\t{name}\t{told.get(name, '-')}\tlocal\n" for name in COLUMNS))

    assert await ZfsBackend("tank", "rpool/onelun", properties={}).volumes() == []
