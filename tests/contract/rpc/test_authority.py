"""The authority in a directory, with the real openssl: what is made, what is kept, what is left alone."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest
from tests.support.certificates import openssl
from tests.support.requires import requires

from onelun.errors import Rejected
from onelun.rpc.authority import DAY_S, Authority, rabbitmq_conf
from onelun.rpc.certificates import read_certificate

USERS = ("frontend", "nas.nas1")


@pytest.fixture
def where(tmp_path: Path) -> Path:
    requires("openssl")
    return tmp_path / "tls"


def in_days(days: float):
    return lambda: time.time() + days * DAY_S


def content(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


async def test_what_is_made_is_what_strict_readers_take(where: Path):
    made = await Authority(str(where)).make(USERS, ["one.example.org", "192.0.2.1", "[2001:db8::1]"])

    assert made == ["ca", "broker", "frontend", "nas.nas1"]
    strict = ("verify", "-x509_strict", "-CAfile", where / "ca.pem")
    for host in (("-verify_hostname", "one.example.org"), ("-verify_ip", "192.0.2.1"), ("-verify_ip", "2001:db8::1")):
        openssl(*strict, "-purpose", "sslserver", *host, where / "broker.pem")
    openssl(*strict, "-purpose", "sslclient", where / "frontend.pem", where / "nas.nas1.pem")
    assert (await read_certificate(str(where / "nas.nas1.pem"))).account == "nas.nas1"
    modes = {path.name: path.stat().st_mode & 0o777 for path in where.iterdir()}
    assert modes == {"ca.key": 0o600, "ca.pem": 0o644} | {f"{one}.pem": 0o600 for one in ("broker", *USERS)}
    assert where.stat().st_mode & 0o777 == 0o700


async def test_a_repeat_changes_nothing_and_adds_who_is_new(where: Path):
    authority = Authority(str(where))
    await authority.make(USERS, ["one"])
    before = content(where)

    assert await authority.make(USERS, ["ONE"]) == []
    assert content(where) == before
    assert await authority.make([*USERS, "compute.kvm1"], ["one"]) == ["compute.kvm1"]
    assert before.items() <= content(where).items()


async def test_another_name_of_the_broker_comes_beside_the_ones_it_has(where: Path):
    authority = Authority(str(where))
    await authority.make(USERS, ["one"])

    assert await authority.make(USERS, ["two", "192.0.2.1"]) == ["broker"]
    assert (await read_certificate(str(where / "broker.pem"))).names == {"one", "two", "192.0.2.1"}
    assert await authority.make(USERS, ["one"]) == []


async def test_what_ends_within_60_days_is_made_anew_under_the_same_authority(where: Path):
    await Authority(str(where)).make(USERS, ["one"])
    before = content(where)

    assert await Authority(str(where), in_days(669)).make(USERS, ["one"]) == []
    assert await Authority(str(where), in_days(671)).make(USERS, ["two"]) == ["broker", *USERS]
    after = content(where)
    assert {name for name in after if after[name] == before[name]} == {"ca.pem", "ca.key"}
    assert (await read_certificate(str(where / "broker.pem"))).names == {"one", "two"}


async def test_an_authority_that_ends_before_what_it_would_sign_gets_longer_and_keeps_its_key(
    where: Path, tmp_path: Path
):
    await Authority(str(where)).make(USERS, ["one"])
    key, former = (where / "ca.key").read_bytes(), tmp_path / "nas.nas1.pem"
    former.write_bytes((where / "nas.nas1.pem").read_bytes())
    old = tmp_path / "old.pem"
    old.write_bytes((where / "ca.pem").read_bytes())

    assert await Authority(str(where), in_days(2900)).make(USERS, ["one"]) == ["ca", "broker", *USERS]

    assert (where / "ca.key").read_bytes() == key
    # While the new files are on their way to the machines, each knows the other's.
    openssl("verify", "-CAfile", where / "ca.pem", former)
    openssl("verify", "-CAfile", old, where / "nas.nas1.pem")


async def test_a_setup_that_was_killed_after_the_key_goes_on_from_there(where: Path):
    authority = Authority(str(where))
    await authority.make([], ["one"])
    key = (where / "ca.key").read_bytes()
    for name in ("ca.pem", "broker.pem"):
        (where / name).unlink()
    (where / ".draft-left").mkdir()
    (where / "ca.pem.new").write_text("half")

    assert await authority.make(USERS, ["one"]) == ["ca", "broker", *USERS]

    assert (where / "ca.key").read_bytes() == key
    assert sorted(content(where)) == sorted(["ca.key", "ca.pem", "broker.pem", "frontend.pem", "nas.nas1.pem"])


@pytest.mark.parametrize("name", ["broker.pem", "nas.nas1.pem", "ca.pem", "ca.key"])
@pytest.mark.parametrize("kind", ["no certificate", "another authority's", "a directory"])
async def test_a_file_that_is_somebody_elses_is_refused_and_nothing_is_changed(
    where: Path, tmp_path: Path, name: str, kind: str
):
    await Authority(str(where)).make(USERS, ["one"])
    await Authority(str(tmp_path / "other")).make(USERS, ["one"])
    (where / name).unlink()
    if kind == "a directory":
        (where / name).mkdir()
    else:
        other = (tmp_path / "other" / name).read_bytes()
        (where / name).write_bytes(b"of somebody else\n" if kind == "no certificate" else other)
    before = {path.name: path.read_bytes() for path in where.iterdir() if path.is_file()}

    with pytest.raises(Rejected, match=r"move|put back") as caught:
        await Authority(str(where)).make([*USERS, "compute.new"], ["two"])

    assert name in caught.value.sentence
    assert {path.name: path.read_bytes() for path in where.iterdir() if path.is_file()} == before


async def test_an_authority_whose_key_is_elsewhere_signs_nothing(where: Path):
    await Authority(str(where)).make(USERS, ["one"])
    (where / "ca.key").unlink()

    with pytest.raises(Rejected, match="run the setup where the authority's key is"):
        await Authority(str(where)).make(USERS, ["one"])


async def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("mine\n")

    with pytest.raises(Rejected, match=r"cannot make the directory .*/file/tls: Not a directory"):
        await Authority(str(tmp_path / "file" / "tls")).make(USERS, ["one"])
    with pytest.raises(Rejected, match=r"cannot make the directory .*/file: File exists"):
        await Authority(str(tmp_path / "file")).make(USERS, ["one"])
    with pytest.raises(Rejected, match="cannot write in /proc/self"):
        await Authority("/proc/self").make(USERS, ["one"])
    assert (tmp_path / "file").read_text() == "mine\n"


async def test_two_setups_do_not_work_in_one_directory(where: Path):
    await Authority(str(where)).make(USERS, ["one"])
    other = os.open(where, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Rejected, match="another setup is at work"):
            await Authority(str(where)).make(USERS, ["one"])
    finally:
        os.close(other)

    assert await Authority(str(where)).make(USERS, ["one"]) == []


@pytest.mark.parametrize(
    ("user", "host", "says"),
    [
        ("broker", "one", "cannot be called 'broker'"),
        ("ca", "one", "cannot be called 'ca'"),
        (f"compute.{'n' * 60}", "one", "too long for a certificate"),
        ("frontend", "one,DNS:evil", "is no name or address"),
        ("frontend", "one\nCN = evil", "is no name or address"),
        ("frontend", "$ENV::HOME", "is no name or address"),
        ("frontend", "192.0.2.300", "is no name or address"),
        ("frontend", "", "is no name or address"),
    ],
)
async def test_a_name_that_no_certificate_can_have_is_refused_before_anything_is_made(
    where: Path, user: str, host: str, says: str
):
    with pytest.raises(Rejected, match=says):
        await Authority(str(where)).make([user], [host])

    assert not where.exists()


async def test_the_lines_for_rabbitmq_never_take_the_place_of_another_file(where: Path):
    authority = Authority(str(where))
    await authority.make([], ["one"])
    path, changed = authority.write_conf(rabbitmq_conf(5671, "/etc/rabbitmq/onelun"))

    assert changed
    assert "listeners.ssl.default = 5671" in Path(path).read_text()
    assert authority.write_conf(rabbitmq_conf(5671, "/etc/rabbitmq/onelun")) == (path, False)
    assert authority.write_conf(rabbitmq_conf(5672, "/etc/rabbitmq/onelun")) == (path, True)
    assert "listeners.ssl.default = 5672" in Path(path).read_text()
    Path(path).write_text("log.console = true\n")
    with pytest.raises(Rejected, match="is not onelun's: move it away"):
        authority.write_conf(rabbitmq_conf(5671, "/etc/rabbitmq/onelun"))
    assert Path(path).read_text() == "log.console = true\n"
