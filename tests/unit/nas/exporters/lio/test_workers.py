"""The processes that change LIO, on a machine that may have none: how they are started, replaced and given up."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from onelun.errors import Stalled
from onelun.model import Portal
from onelun.nas.exporters.lio.process import Workers
from onelun.nas.exporters.lio.worker import LENGTH, List, Remove, Shut
from onelun.nas.exporters.portal import address_lacks, port_taken, portal_lacks

ABSENT = "iqn.2026-11.io.onelun.nas-of-no-one:tank.one-1.e1"
ASKED = List("nas-of-no-one")


@pytest.fixture
async def workers():
    made = Workers(at_once=1)
    yield made
    await made.close()


def only(workers):
    (worker,) = workers._idle
    return worker.process


async def test_a_worker_answers_and_is_kept_for_the_next_request(workers):
    assert (await workers.ask(ASKED, 30)).targets == []
    first = only(workers)

    await workers.ask(Shut(ABSENT, 1), 30)

    assert only(workers).pid == first.pid


async def test_a_worker_that_died_is_replaced(workers):
    await workers.ask(ASKED, 30)
    only(workers).kill()

    assert (await workers.ask(ASKED, 30)).targets == []


async def test_a_worker_that_does_not_answer_is_given_up_and_the_next_request_has_a_new_one(workers):
    await workers.ask(ASKED, 30)
    hung = only(workers)
    os.kill(hung.pid, signal.SIGSTOP)

    with pytest.raises(Stalled, match=r"within 0\.5 s"):
        await workers.ask(ASKED, 0.5)

    assert workers.stuck == 0
    assert (await workers.ask(ASKED, 30)).targets == []
    assert only(workers).pid != hung.pid


async def test_requests_of_many_callers_go_one_after_the_other(workers):
    answers = await asyncio.gather(*(workers.ask(ASKED, 30) for _ in range(20)))

    assert len(answers) == 20
    assert only(workers).returncode is None


async def test_a_caller_that_gives_up_leaves_no_half_answer_to_the_next(workers):
    await workers.ask(ASKED, 30)
    os.kill(only(workers).pid, signal.SIGSTOP)
    asking = asyncio.create_task(workers.ask(ASKED, 30))
    await asyncio.sleep(0.1)

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    assert (await workers.ask(ASKED, 30)).targets == []


async def test_closed_workers_end(workers):
    await workers.ask(ASKED, 30)
    process = only(workers)

    await workers.close()

    assert process.returncode is not None


def start(parent):
    return subprocess.Popen(
        [sys.executable, "-m", "onelun.nas.exporters.lio.worker", str(parent)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "lib"},
    )


def test_a_worker_ends_with_its_agent():
    worker = start(os.getpid())

    worker.stdin.close()

    assert worker.wait(30) == 0
    worker.stdout.close()


def test_a_worker_whose_agent_died_before_it_began_does_nothing():
    worker = start(os.getpid() + 1)

    assert worker.wait(30) == 0
    worker.stdin.close()
    worker.stdout.close()


async def test_a_request_that_fails_says_why_and_the_worker_goes_on(workers):
    assert LENGTH.size == 4
    await workers.ask(Remove("nas-of-no-one", ABSENT), 30)

    assert (await workers.ask(ASKED, 30)).targets == []


# Portals


def test_an_address_of_no_interface_and_one_of_all_are_named():
    assert address_lacks(Portal("127.0.0.1")) == []
    assert "198.18.99.9" in address_lacks(Portal("198.18.99.9"))[0]
    assert "0.0.0.0" in address_lacks(Portal("0.0.0.0"))[0]
    assert "cannot be used" in address_lacks(Portal("no-address"))[0]


def test_a_port_is_taken_while_somebody_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        portal = Portal("127.0.0.1", server.getsockname()[1])
        assert "another program listens" in port_taken(portal)[0]
        assert portal_lacks(portal) == []

    assert port_taken(portal) == []
    assert "nothing takes logins" in portal_lacks(portal)[0]
