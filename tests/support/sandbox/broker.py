"""The sandbox's RabbitMQ: a node of its own, as an ordinary user, on loopback and on the bridge."""

from __future__ import annotations

import json
import sys

import pika
import pika.exceptions
from tests.support.sandbox.place import CHECKOUT, Place, SandboxError
from tests.support.sandbox.processes import keep_pid, run


def start_broker(place: Place) -> dict[str, str]:
    """Start the node, make its users and their permissions; returns the URL of each user, as seen from its role.

    The node lives in a mount namespace that shows the sandbox's mark, by which its processes are found.
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
    admin = run(*apart, *node, "--uid", uid, "--gid", uid, timeout_s=75).strip()
    with open(f"{home}/broker.json") as file:
        keep_pid(place, "broker", json.load(file)["pids"][0])
    return _make_users(place, admin)


def _make_users(place: Place, admin: str) -> dict[str, str]:
    raise SandboxError("the broker's users cannot be made yet")


def has_queue(url: str, node: str) -> bool:
    """Whether an agent of that name is present: its queue is exclusive and goes with it."""
    try:
        connection = pika.BlockingConnection(pika.URLParameters(url))
    except pika.exceptions.AMQPError:
        return False
    try:
        # A passive declare needs no permission; an exclusive queue of somebody else answers 405, an absent one 404.
        connection.channel().queue_declare(node, passive=True)
    except pika.exceptions.ChannelClosedByBroker as error:
        return bool(error.reply_code == 405)
    finally:
        connection.close()
    return True
