"""A broker that lets in by certificates alone, set up by `onelun broker setup --tls`: who gets in, and as whom."""

from __future__ import annotations

import asyncio
import re
import shutil
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from click.exceptions import Exit
from click.testing import CliRunner, Result
from tests.contract.rpc.conftest import Agents, Nas
from tests.support.broker import PrivateBroker
from tests.support.certificates import dated, openssl
from tests.support.requires import requires

from onelun.cli.broker import broker as command
from onelun.cli.check import report
from onelun.config import Broker, Config, Limits
from onelun.config import Compute as Role
from onelun.deadline import Deadline
from onelun.errors import OnelunError, Unreachable
from onelun.rpc.address import parse_address
from onelun.rpc.authority import Authority
from onelun.rpc.link import Link
from onelun.rpc.message import ListZvols, MapZvol
from onelun.rpc.session import connect

DAY_S = 86400.0
# The first test's time has the start of the broker and its setup in it.
pytestmark = pytest.mark.timeout(300)


class Cloud:
    """A broker with TLS, the directory with its authority, and another authority that nobody asked for."""

    def __init__(self, made: Path, other: Path) -> None:
        self.made = made
        self.other = other
        self.node = PrivateBroker(tls=made)

    def set_up(self, *more: str) -> Result:
        """`onelun broker setup --tls`."""
        where = ["--tls-dir", str(self.made), "--tls-path", str(self.made), "--url-dir", str(self.made / "urls")]
        tool = ["--rabbitmqctl", self.node.rabbitmqctl_path, "--broker-address", self.node.host_port]
        names = ["--frontend", "frontend", "--nas", "nas1", "--nas", "nas2", "--compute", "node1"]
        return CliRunner().invoke(command, ["setup", "--tls", *where, *tool, *names, *more])

    def url(self, user: str, **options: Path | str | None) -> str:
        """The user's URL, with other files for TLS, or without those that are None."""
        plain = f"amqps://{user}@{self.node.host_port}/%2F"
        files = {"cafile": self.made / "ca.pem", "certfile": self.made / f"{user}.pem"} | options
        return f"{plain}?{'&'.join(f'{name}={path}' for name, path in files.items() if path is not None)}"


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    requires("rabbitmq-server", "openssl")
    made, other = tmp_path_factory.mktemp("tls"), tmp_path_factory.mktemp("other")
    asyncio.run(Authority(str(made)).make([], ["127.0.0.1", "localhost"]))
    asyncio.run(Authority(str(other)).make(["nas.nas1"], ["127.0.0.1"]))
    made_cloud = Cloud(made, other)
    with made_cloud.node:
        done = made_cloud.set_up()
        assert done.exit_code == 0, done.output
        yield made_cloud


@pytest.fixture
async def agents(cloud: Cloud, tmp_path: Path) -> AsyncIterator[Agents]:
    urls = {user: cloud.url(user) for user in ("frontend", "nas.nas1", "nas.nas2", "compute.node1")}
    # Those whose certificate is another's.
    urls["nas.nas1 as frontend"] = cloud.url("frontend", certfile=cloud.made / "nas.nas1.pem")
    urls["nas.nas2"] = cloud.url("nas.nas2", certfile=cloud.made / "nas.nas1.pem")
    started = Agents(urls, tmp_path)
    try:
        yield started
    finally:
        async with asyncio.timeout(30):
            await started.close()


async def opened(url: str) -> None:
    """Connect; raises what is in the way."""
    link = Link(url, name="test")
    await link.open()
    try:
        await link.session(Deadline.after(60))
    finally:
        await link.close()


async def refused(url: str, says: str) -> None:
    """Connect until the broker has said what is expected of it, a pattern; to be let in is a failure."""
    said = "nothing"
    try:
        async with asyncio.timeout(60):
            while not re.search(says, said):
                with pytest.raises(Unreachable) as caught:
                    await connect(parse_address(url), name="test", heartbeat_s=20, blocked_s=30)
                said = caught.value.sentence
    except TimeoutError:
        pytest.fail(f"the broker said: {said}")


def checked(url: str, capsys: pytest.CaptureFixture[str], *, waits_s: float = 20.0) -> str:
    """What a role's check says of the broker. One that is not to connect need not be waited for."""
    role = Role(name="node1", initiator="iqn.2026-11.io.onelun.host:node1")
    config = Config(broker=Broker(url=url), limits=Limits(accept_s=waits_s), compute=role)
    try:
        report(config, role, "node1", {})
    except Exit:
        return capsys.readouterr().out
    return ""


async def test_a_request_goes_from_the_frontend_to_a_nas_and_back_and_each_knows_who_asks(
    agents: Agents, soon: Deadline
):
    nas = Nas()
    await agents.agent(nas)
    client = await agents.client()

    reply = await client.ask("nas1", MapZvol(zvol="one-1", remotehost="node1", size_bytes=512), deadline=soon)

    assert reply.epoch == 1
    assert nas.callers == ["frontend"]


async def test_who_has_no_certificate_is_not_let_in_by_a_password_either(cloud: Cloud):
    admin = f"admin:{cloud.node.node.password}"
    url = cloud.url("admin", certfile=None).replace("admin@", f"{admin}@")

    # What TLS has against somebody is at times lost with the connection.
    await refused(url, "lets nobody in without a certificate|does not speak AMQP")
    # Nor with somebody's certificate.
    await refused(cloud.url("nas.nas1").replace("nas.nas1@", f"{admin}@"), "takes no password")


async def test_a_certificate_of_another_authority_is_refused(cloud: Cloud):
    await refused(cloud.url("nas.nas1", certfile=cloud.other / "nas.nas1.pem"), "our certificate")


async def test_a_broker_of_another_authority_is_refused(cloud: Cloud):
    ca = cloud.other / "ca.pem"

    await refused(
        cloud.url("nas.nas1", cafile=ca),
        f"certificate verify failed .* it needs a certificate for 127.0.0.1 that {ca} has signed",
    )


async def test_a_certificate_is_let_in_as_its_own_account_and_as_no_other(agents: Agents, soon: Deadline):
    nas = Nas()
    await agents.agent(nas)
    forger = await agents.client("nas.nas1 as frontend")

    with pytest.raises(OnelunError, match="the broker does not let frontend ask nas1"):
        await forger.ask("nas1", ListZvols(), deadline=soon)
    # A NAS may ask a host, and there it is the name that is refused.
    with pytest.raises(OnelunError, match=r"user_id .* 'frontend' but authenticated user was 'nas\.nas1'"):
        await forger.ask("node1", ListZvols(), deadline=soon)
    with pytest.raises(OnelunError, match=r"nas2"):
        await agents.agent(Nas(), "nas2")

    assert nas.listed == []
    # The agent itself goes on.
    await (await agents.client()).ask("nas1", ListZvols(), deadline=soon)


async def test_a_user_that_the_broker_does_not_have_is_refused(cloud: Cloud):
    await Authority(str(cloud.made)).make(["stranger"], ["127.0.0.1"])

    await refused(cloud.url("stranger"), "it has no user stranger")


async def test_a_broker_whose_plug_in_is_off_is_said(cloud: Cloud):
    # What it offers without the plug-in.
    cloud.node.ctl("eval", "application:set_env(rabbit, auth_mechanisms, ['PLAIN']).")
    try:
        await refused(cloud.url("nas.nas1"), "enable its plug-in rabbitmq_auth_mechanism_ssl")
    finally:
        cloud.node.ctl("eval", "application:set_env(rabbit, auth_mechanisms, ['EXTERNAL']).")

    await opened(cloud.url("nas.nas1"))


def test_a_good_certificate_is_nothing_to_speak_of(cloud: Cloud, capsys: pytest.CaptureFixture[str]):
    assert checked(cloud.url("compute.node1"), capsys) == ""


@pytest.mark.parametrize(
    ("begins_days", "ends_days", "waits_s", "says"),
    [
        (-10, -2, 0.5, "ended on 20"),
        (2, 10, 0.5, "is the clock right?"),
        (-10, 7.5, 20, "in 7 days: repeat `onelun broker setup --tls`"),
    ],
)
def test_the_check_says_when_a_certificate_ends(
    cloud: Cloud,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    begins_days: float,
    ends_days: float,
    waits_s: float,
    says: str,
):
    made = dated(cloud.made, "compute.node1", tmp_path, begins_s=begins_days * DAY_S, ends_s=ends_days * DAY_S)

    said = checked(cloud.url("compute.node1", certfile=made), capsys, waits_s=waits_s)

    assert said.count("\n") == 1, said
    assert said.startswith(f"broker: our certificate {made} ")
    assert says in said


def test_the_check_says_when_the_authority_ends(cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    key = ("-key", cloud.made / "ca.key", "-days", "9", "-addext", "keyUsage=keyCertSign")
    subject = openssl("x509", "-in", cloud.made / "ca.pem", "-noout", "-subject", "-nameopt", "RFC2253")
    name = f"/{subject.strip().partition('=')[2]}"
    openssl("req", "-x509", *key, "-subj", name, "-out", tmp_path / "ca.pem")

    said = checked(cloud.url("compute.node1", cafile=tmp_path / "ca.pem"), capsys)

    assert said.startswith(f"broker: the authority {tmp_path}/ca.pem ends on "), said
    assert said.count("\n") == 1


def test_the_check_says_that_others_may_read_the_key(cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    mine = tmp_path / "mine.pem"
    shutil.copy(cloud.made / "compute.node1.pem", mine)
    mine.chmod(0o644)

    said = checked(cloud.url("compute.node1", certfile=mine), capsys)

    assert said == f"broker: the key in {mine} may be read or changed by others (mode 0644): chmod 0600\n"
    mine.chmod(0o640)
    assert checked(cloud.url("compute.node1", certfile=mine), capsys) == ""


def test_the_check_says_what_does_not_belong_together(cloud: Cloud, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = (cloud.made / "compute.node1.pem").read_text()
    alone = tmp_path / "alone.pem"
    alone.write_text(text.partition("-----BEGIN PRIVATE KEY-----")[0])
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing\n")
    made, url = cloud.made, cloud.url

    for said, says in (
        (url("compute.node1", certfile=made / "nas.nas1.pem"), "is of 'nas.nas1', and the AMQP URL of compute.node1"),
        (url("nas.nas1", certfile=cloud.other / "nas.nas1.pem"), "they are of two authorities"),
        (url("compute.node1", certfile=alone), "has no key of the certificate"),
        (url("compute.node1", certfile=alone, keyfile=made / "nas.nas1.pem"), "has no key of the certificate"),
        (url("compute.node1", certfile=nothing), "nothing.pem has no certificate"),
        (url("compute.node1", certfile=tmp_path / "absent"), "No such file"),
        (url("compute.node1", keyfile=tmp_path / "absent"), "No such file"),
        (url("compute.node1", cafile=tmp_path / "absent"), "No such file"),
        (url("compute.node1", cafile=cloud.other / "ca.pem"), "they are of two authorities"),
    ):
        found = checked(said, capsys, waits_s=0.5)
        assert says in found
        assert found.count("\n") == 1, found


def test_a_setup_that_is_repeated_keeps_every_file_and_says_so(cloud: Cloud):
    before = {path: path.read_bytes() for path in cloud.made.rglob("*") if path.is_file()}

    done = cloud.set_up()

    assert done.exit_code == 0, done.output
    assert "Every certificate is good." in done.output
    assert {path: path.read_bytes() for path in cloud.made.rglob("*") if path.is_file()} == before


async def test_a_host_that_comes_later_gets_a_certificate_and_is_let_in(cloud: Cloud):
    done = await asyncio.to_thread(cloud.set_up, "--compute", "node9")

    assert done.exit_code == 0, done.output
    assert f"On the machine of compute.node9, into {cloud.made}" in done.output
    assert "On the machine of compute.node1" not in done.output
    await opened((cloud.made / "urls" / "compute.node9.url").read_text().strip())


def test_passwords_that_a_cloud_has_for_tls_are_not_taken_away_unasked(cloud: Cloud, tmp_path: Path):
    where = ["--url-dir", str(tmp_path), "--tls-dir", str(tmp_path / "tls"), "--nas", "nas9"]
    tool = ["--rabbitmqctl", cloud.node.rabbitmqctl_path, "--broker-address", cloud.node.host_port]
    first = CliRunner().invoke(command, ["setup", *where, *tool, "--tls-passwords"])
    url = (tmp_path / "nas.nas9.url").read_text()

    second = CliRunner().invoke(command, ["setup", *where, *tool, "--tls"])

    assert first.exit_code == 0, first.output
    assert url.startswith("amqps://nas.nas9:")
    assert second.exit_code == 1
    assert "has a password for TLS: repeat with --tls-passwords" in second.output
    assert (tmp_path / "nas.nas9.url").read_text() == url
    assert not (tmp_path / "tls").exists()


def test_a_renewal_says_nothing_of_a_restart(tmp_path: Path, cloud: Cloud):
    where = ["--tls-dir", str(tmp_path), "--url-dir", str(tmp_path / "urls"), "--nas", "nas1"]
    tool = ["--rabbitmqctl", cloud.node.rabbitmqctl_path, "--broker-address", cloud.node.host_port]
    first = CliRunner().invoke(command, ["setup", "--tls", *where, *tool])
    shutil.copy(dated_broker(tmp_path), tmp_path / "broker.pem")

    again = CliRunner().invoke(command, ["setup", "--tls", *where, *tool])

    assert "systemctl restart rabbitmq-server" in first.output
    assert f"Made: {tmp_path}/broker.pem\n" in again.output, again.output
    assert "ssl:clear_pem_cache()" in again.output
    assert "systemctl restart" not in again.output


def dated_broker(authority: Path) -> Path:
    """A certificate of the broker's that ends in a week."""
    work = authority / "work"
    work.mkdir()
    return dated(authority, "broker", work, begins_s=-DAY_S, ends_s=7 * DAY_S)


async def test_a_certificate_of_the_broker_that_is_renewed_counts_without_a_restart(cloud: Cloud):
    made, node = cloud.made, Path(cloud.node.node.directory)
    in_two_years = Authority(str(made), lambda: time.time() + 700 * DAY_S)
    assert "broker" in await in_two_years.make([], ["127.0.0.1"])
    await opened(cloud.url("nas.nas1"))

    shutil.copy(made / "broker.pem", node / "broker.pem")
    await asyncio.to_thread(cloud.node.ctl, "eval", "ssl:clear_pem_cache().")

    async with asyncio.timeout(60):
        # A file that has the key too begins with the certificate.
        while await shown_by(cloud) not in (made / "broker.pem").read_text():
            await asyncio.sleep(0.1)
    await opened(cloud.url("nas.nas1"))


async def shown_by(cloud: Cloud) -> str:
    """The certificate that the broker shows to who connects now."""
    context = ssl.create_default_context(cafile=cloud.made / "ca.pem")
    context.load_cert_chain(cloud.made / "nas.nas1.pem")
    _, writer = await asyncio.open_connection("127.0.0.1", cloud.node.node.port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return ssl.DER_cert_to_PEM_cert(shown)
