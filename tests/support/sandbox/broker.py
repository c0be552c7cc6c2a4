"""The sandbox's RabbitMQ: a node of its own, as an ordinary user, on loopback and on the bridge."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pika
import pika.exceptions
from pika.credentials import ExternalCredentials
from tests.support.sandbox.place import CHECKOUT, NAS, NODES, ONELUN, Place
from tests.support.sandbox.processes import keep_pid, members, run

from onelun.rpc.address import parse_address
from onelun.rpc.authority import Authority
from onelun.rpc.tls import tls_context


def start_broker(place: Place, *, tls: bool = False) -> dict[str, str]:
    """Start the node, make its users and their permissions; returns the URL of each user, as seen from its role.

    With `tls` everybody has a certificate, and nobody a password. The node lives in a mount namespace that shows the
    sandbox's mark, by which its processes are found.
    """
    home, uid = place.path("broker"), str(place.broker_uid)
    script = 'mount -t tmpfs -o mode=755,size=4k "$0" "$1/mark" && cd "$2" && shift 2 && exec "$@"'
    apart = [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "--",
        "sh",
        "-c",
        script,
        place.mark,
        place.dir,
        CHECKOUT,
    ]
    node = [sys.executable, "-m", "tests.support.broker", "start", home, "--also-listen", place.address()]
    if tls:
        os.mkdir(_certificates(place), 0o711)
        asyncio.run(Authority(_certificates(place)).make([], [place.address(), "127.0.0.1"]))
        node += ["--tls", _certificates(place)]
    run(*apart, *node, "--uid", uid, "--gid", uid, timeout_s=300)
    with open(f"{home}/broker.json") as file:
        kept = json.load(file)
    keep_pid(place, "broker", _erlang(place))
    urls = _make_users(place, f"{place.address()}:{kept['port']}", tls=tls)
    if tls:
        os.chown(f"{_certificates(place)}/frontend.pem", place.frontend_uid, place.frontend_uid)
    # The frontend is on the broker's machine, and goes to it by loopback as on a real one.
    return urls | {"frontend": urls["frontend"].replace(f"@{place.address()}:", "@127.0.0.1:")}


def restart_broker(place: Place) -> None:
    """Start the node again after it was killed; returns when it answers. Its users and their permissions are still there."""
    epmd = next(process.pid for process in members(place) if process.name == "epmd")
    node = [sys.executable, "-m", "tests.support.broker", "again", place.path("broker")]
    run("nsenter", "-t", str(epmd), "-m", "sh", "-c", 'cd "$0" && exec "$@"', CHECKOUT, *node, timeout_s=300)
    keep_pid(place, "broker", _erlang(place))


def _erlang(place: Place) -> int:
    """The process that is the broker; what was started is a script that waits for it."""
    return next(process.pid for process in members(place) if process.name == "beam.smp")


def _certificates(place: Place) -> str:
    return place.path("etc", "tls")


def _make_users(place: Place, address: str, *, tls: bool) -> dict[str, str]:
    nodes = [word for node in NODES for word in ("--compute", node)]
    who = ["--frontend", "frontend", "--nas", NAS, *nodes]
    where = ["--url-dir", place.path("etc", "broker"), "--broker-address", address]
    tool = ["--rabbitmqctl", place.path("broker", "rabbitmqctl")]
    if tls:
        where += ["--tls", "--tls-dir", _certificates(place), "--tls-path", _certificates(place)]
    made = run("env", f"PYTHONPATH={CHECKOUT}/lib", *ONELUN, "broker", "setup", *who, *where, *tool, timeout_s=300)
    urls = {}
    for path in made.splitlines():
        with open(path) as file:
            urls[os.path.basename(path).removesuffix(".url")] = file.read().strip()
    return urls


class Presence:
    """Which agents are present: the queue of each is exclusive and goes with it. Ask as often as you like."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: pika.BlockingConnection | None = None

    def __enter__(self) -> Presence:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None and self._connection.is_open:
            self._connection.close()

    def has(self, node: str) -> bool:
        """Whether an agent of that name is there; without a broker none is."""
        try:
            if self._connection is None or not self._connection.is_open:
                self._connection = pika.BlockingConnection(_parameters(self._url))
            channel = self._connection.channel()
            # A passive declare needs no permission; an exclusive queue of somebody else answers 405, an absent one 404.
            channel.queue_declare(node, passive=True)
            channel.close()
        except pika.exceptions.ChannelClosedByBroker as error:
            return bool(error.reply_code == 405)
        except pika.exceptions.AMQPError:
            return False
        return True


def has_queue(url: str, node: str) -> bool:
    """Whether an agent of that name is present, asked once."""
    with Presence(url) as presence:
        return presence.has(node)


def _parameters(url: str) -> pika.connection.Parameters:
    address = parse_address(url)
    if address.password is not None:
        return pika.URLParameters(url)
    options = pika.SSLOptions(tls_context(address), address.host)
    login = ExternalCredentials()
    return pika.ConnectionParameters(address.host, address.port, address.vhost, login, ssl_options=options)
