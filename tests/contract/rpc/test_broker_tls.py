"""A broker with TLS: its certificate is checked against the authority that the URL names, and its name."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.broker import PrivateBroker, free_port
from tests.support.requires import requires

from onelun.deadline import Deadline
from onelun.errors import Rejected, Unreachable
from onelun.rpc.channel import Outcome, properties_of
from onelun.rpc.link import Link


class Tls:
    """A broker on `port` for TLS, with a certificate for localhost signed by the authority in `cafile`."""

    def __init__(self, broker: PrivateBroker, port: int, cafile: Path) -> None:
        self.broker = broker
        self.port = port
        self.cafile = cafile

    def url(self, host: str = "localhost", cafile: Path | None = None) -> str:
        password = self.broker.node.password
        return f"amqps://admin:{password}@{host}:{self.port}/?cafile={cafile or self.cafile}"


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=120)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    requires("rabbitmq-server", "openssl")
    made = tmp_path_factory.mktemp("tls")
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    openssl("req", "-x509", *ec, "-keyout", made / "ca.key", "-out", made / "ca.pem", "-subj", "/CN=test authority")
    openssl(
        *("req", "-x509", *ec, "-keyout", made / "key.pem", "-out", made / "cert.pem", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost", "-CA", made / "ca.pem", "-CAkey", made / "ca.key"),
    )
    openssl("req", "-x509", *ec, "-keyout", made / "no.key", "-out", made / "other.pem", "-subj", "/CN=another")
    port = free_port("127.0.0.1")
    broker = PrivateBroker()
    try:
        directory = Path(broker.node.directory)
        for name in ("cert.pem", "key.pem", "ca.pem"):
            (directory / name).write_bytes((made / name).read_bytes())
        broker.configure(
            f"listeners.ssl.1 = 127.0.0.1:{port}\n"
            f"ssl_options.cacertfile = {directory}/ca.pem\n"
            f"ssl_options.certfile = {directory}/cert.pem\n"
            f"ssl_options.keyfile = {directory}/key.pem\n"
        )
        broker.start()
        yield Tls(broker, port, made / "ca.pem")
    finally:
        broker.stop()


async def published(url: str, within_s: float = 6) -> Outcome:
    link = Link(url, name="test")
    await link.open()
    try:
        session = await link.session(Deadline.after(within_s))
        return await session.publish(
            "amq.topic", "nobody", b"{}", properties_of(message_id="1"), Deadline.after(within_s)
        )
    finally:
        await link.close()


async def test_a_broker_whose_certificate_is_known_is_used(tls: Tls):
    assert await published(tls.url(), 60) is Outcome.UNROUTABLE


async def test_a_certificate_of_another_authority_is_refused(tls: Tls):
    with pytest.raises(Unreachable, match="certificate verify failed"):
        await published(tls.url(cafile=tls.cafile.with_name("other.pem")))


async def test_a_certificate_for_another_name_is_refused(tls: Tls):
    with pytest.raises(Unreachable, match="certificate verify failed"):
        await published(tls.url(host="127.0.0.1"))


async def test_an_authority_that_cannot_be_read_is_said(tls: Tls):
    with pytest.raises(Rejected, match=r"cannot read the certificate authority .*absent\.pem"):
        await published(tls.url(cafile=tls.cafile.with_name("absent.pem")))
