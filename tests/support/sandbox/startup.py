"""The start of a sandbox: everything from nothing to three agents and a frontend that answer."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from tests.support.sandbox import record
from tests.support.sandbox.broker import Presence, start_broker
from tests.support.sandbox.place import CHECKOUT, HOSTS, NAS, Place, SandboxError
from tests.support.sandbox.processes import members, recorded, wait_until
from tests.support.sandbox.roles import (
    make_directories,
    make_faults,
    start_agent,
    start_frontend,
    write_configurations,
)
from tests.support.sandbox.targets import start_tgtd, tgt_control
from tests.support.sandbox.teardown import down
from tests.support.sandbox.topology import check_machine, limit_state, make_bridge, make_hosts, make_pool
from tests.support.sandbox.warm import is_warm, start_warm

Say = Callable[[str], None]


@dataclass(frozen=True)
class Variant:
    """What of a sandbox may be otherwise: settings of [limits] and [frontend], and a filesystem (xfs, btrfs) for the pool.

    `state_mb` limits what the NAS agent's own state may take, on a filesystem of its own.
    With `faults` its roles let in what is planned in the directory `faults` of the sandbox; `warm` ones start in no time.
    With `tls` they go to the broker by certificates.
    """

    limits: dict[str, object] = field(default_factory=dict)
    pool_on: str | None = None
    frontend: dict[str, object] = field(default_factory=dict)
    state_mb: int | None = None
    faults: bool = False
    tls: bool = False
    warm: bool = False


PLAIN = Variant()


def up(number: int | None, directory: str | None, owner: int | None, say: Say, variant: Variant = PLAIN) -> Place:
    """Make a sandbox and return when all its roles answer. What fails leaves nothing behind.

    `owner`, a process id, is whose sandbox it is; None keeps it until `down`.
    """
    check_machine()
    place = record.take_place(number, directory, owner)
    try:
        with _starting(place):
            _build(place, say, variant)
            record.keep_owner(place, owner)
            record.write(place, ready=True)
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


def _build(place: Place, say: Say, variant: Variant) -> None:
    make_directories(place)
    make_bridge(place)
    with ThreadPoolExecutor(1) as pool, _ended_early(place):
        # The broker takes most of the time; its address on the bridge is there already.
        urls = pool.submit(start_broker, place, tls=variant.tls)
        hosts = make_hosts(place)
        if variant.pool_on:
            make_pool(place, hosts[NAS], variant.pool_on)
        if variant.state_mb:
            limit_state(place, hosts[NAS], variant.state_mb)
        start_tgtd(place, hosts[NAS].pid)
        say("hosts and tgtd are up")
        users = urls.result()
    if variant.faults:
        make_faults(place)
    write_configurations(place, users, variant.limits, variant.frontend)
    record.write(place, url=users["frontend"])
    say("broker answers")
    _make_command(place)
    if variant.warm:
        for role in (*HOSTS, "frontend"):
            _start(place, role, warm=True)
    for role in (*HOSTS, "frontend"):
        start_role(place, role)
    for role in (*HOSTS, "frontend"):
        wait_for_role(place, role)
    say("agents and frontend answer")


@contextlib.contextmanager
def _ended_early(place: Place) -> Iterator[None]:
    """End what runs already when something fails or a person interrupts, instead of waiting for it."""
    try:
        yield
    except BaseException:
        for process in members(place):
            process.kill()
        raise


def restart(place: Place, role: str) -> None:
    """End the role's process, if it runs, and start it anew; returns when it answers. Roles: the hosts, frontend, tgtd."""
    running = recorded(place, role)
    if running:
        running.kill(signal.SIGTERM)
        with contextlib.suppress(SandboxError):
            wait_until(lambda: not running.alive(), f"{role} should end", 20)
    kill(place, role)
    start_role(place, role)
    wait_for_role(place, role)


def kill(place: Place, role: str) -> None:
    """Kill the role's process (SIGKILL), if it runs; returns when it is gone, also for the broker."""
    if running := recorded(place, role):
        running.kill()
        wait_until(lambda: not running.alive(), f"{role} should end", 60)
    if role in HOSTS:
        # The broker hears a moment later that it is gone; until then its queue would pass for the new one's.
        with Presence(record.read(place)["url"]) as presence:
            wait_until(lambda: not presence.has(role), f"{role} should leave the broker", 60)


def start_role(place: Place, role: str) -> None:
    """Start an agent, the frontend or tgtd."""
    if role == "frontend":
        # Its socket is still there when it was killed; only a new one tells that it serves.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(place.frontend_socket)
    if is_warm(place, role):
        start_warm(place, role)
    else:
        _start(place, role)


def _start(place: Place, role: str, *, warm: bool = False) -> None:
    if role == "frontend":
        start_frontend(place, warm=warm)
        return
    holder = recorded(place, f"{NAS if role == 'tgtd' else role}.holder")
    if holder is None:
        raise SandboxError(f"the host of {role} is gone: scripts/sandbox down --id {place.number}")
    if role == "tgtd":
        start_tgtd(place, holder.pid)
    else:
        start_agent(place, role, holder.pid, warm=warm)


def wait_for_role(place: Place, role: str) -> None:
    """Wait until it answers. SandboxError, with the end of its log, when it does not."""
    try:
        with Presence(record.read(place)["url"]) as presence:
            present: Callable[[], bool] = partial(presence.has, role)
            if role in ("frontend", "tgtd"):
                path = place.frontend_socket if role == "frontend" else tgt_control(place)
                present = partial(listens, path)
            wait_until(present, f"{role} should answer", 90, needs=recorded(place, role))
    except SandboxError as error:
        raise SandboxError(f"{error}; its log ends with: {_last_words(place, role)}") from error


def listens(path: str) -> bool:
    """Whether somebody listens there; a socket's name is there a moment before."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _last_words(place: Place, role: str) -> str:
    with open(place.log(role), errors="replace") as file:
        return " | ".join(file.read().splitlines()[-3:])


def _make_command(place: Place) -> None:
    """`onelun`, for a PATH that has nothing else of the checkout's .venv."""
    os.mkdir(place.path("bin"))
    path = place.path("bin", "onelun")
    with open(path, "w") as file:
        file.write(f'#!/bin/sh\nexec "{CHECKOUT}/.venv/bin/onelun" "$@"\n')
    os.chmod(path, 0o755)
