"""The front of a lab: broker and frontend are processes of this machine in the lab's namespaces, as the sandbox has them."""

from __future__ import annotations

import json
import os
import sys

from tests.support.lab import record
from tests.support.lab.calls import call, check
from tests.support.lab.place import CHECKOUT, FRONT, GUESTS, NAS, NODES, Lab, LabError
from tests.support.lab.shell import Front, front
from tests.support.sandbox import roles
from tests.support.sandbox.broker import has_queue
from tests.support.sandbox.place import ONELUN, SandboxError
from tests.support.sandbox.processes import run, wait_until

ANSWER_S = 180


def start_broker(lab: Lab) -> dict[str, str]:
    """Make the front's directories, start RabbitMQ and make its users; returns the URL of each as seen from its role."""
    place = front(lab)
    _make_directories(place)
    home, uid = place.path("broker"), str(place.broker_uid)
    node = [sys.executable, "-m", "tests.support.broker", "start", home, "--also-listen", lab.address(FRONT)]
    path = f"PYTHONPATH={CHECKOUT}:{CHECKOUT}/lib"
    run("env", path, *node, "--uid", uid, "--gid", uid, timeout_s=90)
    with open(f"{home}/broker.json") as file:
        port = json.load(file)["port"]
    who = ["--frontend", "frontend", "--nas", NAS, *(word for node in NODES for word in ("--compute", node))]
    where = ["--url-dir", place.path("etc", "broker"), "--broker-address", f"{lab.address(FRONT)}:{port}"]
    tool = ["--rabbitmqctl", f"{home}/rabbitmqctl"]
    made = run("env", path, *ONELUN, "broker", "setup", *who, *where, *tool, timeout_s=90)
    urls = {}
    for name in made.splitlines():
        with open(name) as file:
            urls[os.path.basename(name).removesuffix(".url")] = file.read().strip()
    return urls | {"frontend": urls["frontend"].replace(f"@{lab.address(FRONT)}:", "@127.0.0.1:")}


def _make_directories(place: Front) -> None:
    frontend, broker = place.frontend_uid, place.broker_uid
    wanted = [("etc", 0o711, 0), ("mark", 0o711, 0), ("broker", 0o700, broker), ("frontend", 0o700, frontend)]
    wanted += [(f"frontend/{name}", 0o700, frontend) for name in ("checkout", "staging")]
    wanted.append(("datastores", 0o755, frontend))
    for name, mode, uid in wanted:
        os.mkdir(place.path(name))
        os.chmod(place.path(name), mode)
        os.chown(place.path(name), uid, uid)


def start_frontend(lab: Lab) -> None:
    """Start the frontend as its own user."""
    roles.start_frontend(front(lab))


def start_agent(lab: Lab, host: str) -> None:
    """Start the agent that a guest is configured for; at its later boots it starts by itself."""
    check(lab, host, "/checkout/tests/support/lab/guest/serve")


def wait_for_roles(lab: Lab) -> None:
    """Wait until agents and frontend answer. LabError, with the end of its log, for one that does not."""
    url = record.read(lab)["url"]
    for host in GUESTS:
        try:
            wait_until(lambda host=host: has_queue(url, host), f"the agent of {host} should answer", ANSWER_S)
        except SandboxError as error:
            log = call(lab, host, ["tail", "-n", "5", "/var/log/onelun.log"], limit_s=10).stdout.decode()
            raise LabError(f"{error}; its log ends with: {' | '.join(log.splitlines())}") from error
    wait_until(lambda: os.path.exists(front(lab).frontend_socket), "the frontend should answer", ANSWER_S)
