"""The start of a sandbox: everything from nothing to three agents and a frontend that answer."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.support.sandbox import record
from tests.support.sandbox.broker import has_queue, start_broker
from tests.support.sandbox.place import CHECKOUT, HOSTS, NAS, Place
from tests.support.sandbox.processes import wait_until
from tests.support.sandbox.roles import (
    make_directories,
    start_agent,
    start_frontend,
    write_configurations,
)
from tests.support.sandbox.targets import start_tgtd
from tests.support.sandbox.teardown import down
from tests.support.sandbox.topology import check_machine, make_bridge, make_hosts

Say = Callable[[str], None]


def up(number: int | None, directory: str | None, owner: int | None, say: Say) -> Place:
    """Make a sandbox and return when all its roles answer. What fails leaves nothing behind.

    `owner`, a process id, is whose sandbox it is; None keeps it until `down`.
    """
    check_machine()
    place = record.take_place(number, directory, owner)
    try:
        with _starting(place):
            _build(place, say)
    except BaseException:
        down(place)
        raise
    return place


@contextlib.contextmanager
def _starting(place: Place) -> Iterator[None]:
    """Make a `down` in another process wait for us."""
    lock = os.open(place.path("up.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _build(place: Place, say: Say) -> None:
    make_directories(place)
    make_bridge(place)
    with ThreadPoolExecutor(1) as pool:
        # The broker takes most of the time; its address on the bridge is there already.
        urls = pool.submit(start_broker, place)
        hosts = make_hosts(place)
        start_tgtd(place, hosts[NAS].pid)
        say("hosts and tgtd are up")
        users = urls.result()
    write_configurations(place, users)
    record.write(place, url=users["frontend"])
    say("broker answers")
    _make_command(place)
    agents = {host: start_agent(place, host, hosts[host].pid) for host in HOSTS}
    frontend = start_frontend(place)
    wait_until(lambda: os.path.exists(place.frontend_socket), "the frontend should answer", 15, needs=frontend)
    for host, agent in agents.items():
        present = partial(has_queue, users["frontend"], host)
        wait_until(present, f"{host} should serve", 15, needs=agent)
    say("agents and frontend answer")
    record.write(place, ready=True)


def _make_command(place: Place) -> None:
    """`onelun`, for a PATH that has nothing else of the checkout's .venv."""
    os.mkdir(place.path("bin"))
    path = place.path("bin", "onelun")
    with open(path, "w") as file:
        file.write(f'#!/bin/sh\nexec "{CHECKOUT}/.venv/bin/onelun" "$@"\n')
    os.chmod(path, 0o755)
