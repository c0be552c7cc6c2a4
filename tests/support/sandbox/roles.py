"""The three roles in the sandbox: their configuration files, and their processes."""

from __future__ import annotations

import json
import os
import sys

from tests.support.sandbox.place import CHECKOUT, CLOUD, HOSTS, NAS, NODES, POOL, SPARE, Place
from tests.support.sandbox.processes import Process, start
from tests.support.sandbox.targets import PORT, tgt_control
from tests.support.sandbox.warm import listener

Settings = dict[str, object]


def write_configurations(place: Place, urls: dict[str, str], limits: Settings, frontend: Settings) -> None:
    """One file a role, readable by its user alone; `urls` has the broker's URL for each broker user.

    `limits` and `frontend` are settings that are otherwise than usual.
    """
    roles: dict[str, tuple[str, Settings]] = {NAS: (f"nas.{NAS}", {"nas": _nas(place)})}
    roles |= {node: (f"compute.{node}", {"compute": _compute(place, node)}) for node in NODES}
    roles["frontend"] = ("frontend", {"frontend": _frontend(place) | frontend})
    for role, (user, settings) in roles.items():
        uid = place.frontend_uid if role == "frontend" else 0
        common: Settings = {"faults": bool(_faults(place)), "broker": {"url": urls[user]}, "limits": limits}
        _write(place, role, common | settings, uid)


def make_faults(place: Place) -> None:
    """The directory where a test plans faults; before the configurations are written and anything starts."""
    os.mkdir(place.path("faults"))
    # The frontend, which is another user, marks a plan as used up.
    os.chmod(place.path("faults"), 0o777)


def _faults(place: Place) -> dict[str, str]:
    """What tells a role where its faults are planned, if they are."""
    return {"ONELUN_FAULTS": place.path("faults")} if os.path.isdir(place.path("faults")) else {}


def _nas(place: Place) -> Settings:
    return {
        "name": NAS,
        "state": place.path("hosts", NAS, "state"),
        "exporter": "tgt",
        "tgt": {"control": tgt_control(place), "address": place.address(NAS), "port": PORT},
        "pools": {
            POOL: {"backend": "file", "path": place.pool},
            SPARE: {"backend": "file", "path": place.path("hosts", NAS, SPARE)},
        },
        "default_pool": POOL,
    }


def _compute(place: Place, node: str) -> Settings:
    return {
        "name": node,
        "state": place.path("hosts", node, "state"),
        "run": place.path("hosts", node, "run"),
        "datastores": place.datastores,
        "owner": f"{place.frontend_uid}:{place.frontend_uid}",
        "connector": "userspace",
        "initiator": f"iqn.2026-11.io.onelun.host:{node}",
    }


def _frontend(place: Place) -> Settings:
    return {
        "cloud": CLOUD,
        "socket": place.frontend_socket,
        "nas": [NAS],
        "pools": [f"{NAS}/{POOL}"],
        "names": ["frontend"],
        "hosts": {"host01": "node1", "host02": "node2"},
        "datastores": place.datastores,
        "owner": f"{place.frontend_uid}:{place.frontend_uid}",
        "staging": place.path("frontend", "staging"),
    }


def _write(place: Place, role: str, settings: Settings, uid: int) -> None:
    path = place.config(role)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(toml(settings))
    os.chown(path, uid, uid)


def toml(settings: Settings, prefix: str = "") -> str:
    """`settings` as TOML. Strings, numbers and lists are written alike in JSON and TOML."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in settings.items() if not isinstance(value, dict)]
    text = (f"[{prefix}]\n" if prefix and plain else "") + "".join(f"{line}\n" for line in plain)
    for key, value in settings.items():
        if isinstance(value, dict):
            text += toml(value, f"{prefix}.{key}" if prefix else key)
    return text


def start_agent(place: Place, host: str, inside: int, *, warm: bool = False) -> Process:
    """Start the agent of a host in its namespaces; or, `warm`, the process that becomes it when asked."""
    argv = [sys.executable, *_module(warm=warm), "nas" if host == NAS else "compute"]
    env = {"ONELUN_CONFIG": place.config(host), "PYTHONPATH": f"{CHECKOUT}/lib", "HOME": place.path("hosts", host)}
    return _start(place, host, argv, env, inside=inside, warm=warm)


def start_frontend(place: Place, *, warm: bool = False) -> Process:
    """Start the frontend as its own user, on the machine's network; or, `warm`, the process that becomes it when asked.

    Its mount namespace shows the checkout below the sandbox's directory, since the path to it may be closed to other users
    (a clone in /root), and the mark, by which what it starts is found.
    """
    seen = place.path("frontend", "checkout")
    uid = str(place.frontend_uid)
    script = (
        'set -e; mount -t tmpfs -o mode=755,size=4k "$1" "$2/mark"; mount --bind "$3" "$2/frontend/checkout"; shift 3;'
        ' exec setpriv --reuid "$0" --regid "$0" --clear-groups -- "$@"'
    )
    command = [f"{seen}/{os.path.relpath(sys.executable, CHECKOUT)}", *_module(warm=warm), "frontend"]
    argv = ["unshare", "--mount", "--propagation", "private", "--", "sh", "-c", script, uid, place.mark]
    env = {"ONELUN_CONFIG": place.config("frontend"), "PYTHONPATH": f"{seen}/lib", "HOME": place.path("frontend")}
    return _start(place, "frontend", [*argv, place.dir, CHECKOUT, *command], env, warm=warm)


def _module(*, warm: bool) -> tuple[str, str]:
    return ("-m", "tests.support.sandbox.warm" if warm else "onelun.cli.main")


def _start(
    place: Place, role: str, argv: list[str], env: dict[str, str], *, inside: int | None = None, warm: bool
) -> Process:
    env |= _faults(place)
    if not warm:
        return start(place, role, argv, inside=inside, env=env)
    env["PYTHONPATH"] += f":{os.path.dirname(env['PYTHONPATH'])}"
    with listener(place, role) as asked:
        return start(place, f"{role}.warm", argv, inside=inside, env=env, stdin=asked)


def make_directories(place: Place) -> None:
    """Every directory of the sandbox, with its owner."""
    frontend, broker = place.frontend_uid, place.broker_uid
    wanted = [("pids", 0o700, 0), ("log", 0o700, 0), ("etc", 0o711, 0), ("mark", 0o711, 0), ("hosts", 0o711, 0)]
    wanted += [("broker", 0o700, broker), ("frontend", 0o700, frontend), ("datastores", 0o755, frontend)]
    wanted += [(f"frontend/{name}", 0o700, frontend) for name in ("checkout", "staging")]
    for host in HOSTS:
        wanted += [(f"hosts/{host}", 0o711, 0), (f"hosts/{host}/state", 0o700, 0), (f"hosts/{host}/run", 0o700, 0)]
        wanted.append((f"hosts/{host}/datastores", 0o755, frontend))
    wanted += [(f"hosts/{NAS}/{name}", 0o700, 0) for name in ("pool", SPARE, "tgt")]
    for name, mode, uid in wanted:
        os.mkdir(place.path(name))
        os.chmod(place.path(name), mode)
        os.chown(place.path(name), uid, uid)
