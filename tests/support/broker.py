"""A private RabbitMQ node, as an ordinary user, on free ports: for tests and for the sandbox.

It needs Debian's rabbitmq-server and util-linux, nothing that runs, and touches nothing outside its directory. Its only
user at first is `admin`; `onelun broker setup --rabbitmqctl DIR/rabbitmqctl` makes the others.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from onelun.rpc.authority import rabbitmq_conf
from onelun.rpc.setup import Broker, grants

# The wrappers in /usr/sbin insist on root or the user rabbitmq; these do not.
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
READY_S = 240.0

RABBITMQ_CONF = """\
{listeners}
num_acceptors.tcp = 4
# 200 clients that connect at once overflow the default of 128, which costs them a second each.
tcp_listen_options.backlog = 4096
heartbeat = 20
default_user = admin
default_pass = {password}
default_permissions.configure = .*
default_permissions.write = .*
default_permissions.read = .*
log.console = false
log.file = rabbit.log
log.file.level = warning
"""

# The node's own programs need the same names, cookie and epmd as the node; the first line keeps root out of its HOME.
RABBITMQCTL = """\
#!/bin/sh
[ "$(id -u)" = {uid} ] || exec setpriv --reuid={uid} --regid={gid} --clear-groups -- "$0" "$@"
cd / && exec env -i PATH="$PATH" {environment} {program} "$@"
"""


class BrokerError(Exception):
    """The node did not start, or did not do what it was told."""


@dataclass(frozen=True)
class Node:
    """What a running node is made of; kept in DIR/broker.json so that another process can stop it."""

    directory: str
    address: str
    also_listen: tuple[str, ...]
    port: int
    epmd_port: int
    dist_port: int
    uid: int
    gid: int
    password: str
    pids: tuple[int, ...] = ()
    tls: bool = False

    @property
    def rabbitmqctl(self) -> str:
        return f"{self.directory}/rabbitmqctl"

    def environment(self) -> dict[str, str]:
        """The variables that make every program of RabbitMQ mean this node."""
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "HOME": self.directory,
            "LC_ALL": "C.UTF-8",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": f"{self.directory}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{self.directory}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{self.directory}/mnesia",
            "RABBITMQ_LOG_BASE": f"{self.directory}/log",
            "RABBITMQ_PID_FILE": f"{self.directory}/pid",
            "RABBITMQ_NODENAME": f"onelun{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback,
            "RABBITMQ_CTL_ERL_ARGS": loopback,
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_CRASH_DUMP_BYTES": "0",
        }


class PrivateBroker:
    """One node. `directory` must be reachable for the node's user; without one, a temporary one is made and removed.

    `also_listen` are further addresses of this machine, such as a bridge's. Root runs the node as `uid` and `gid`
    (default: the user rabbitmq, else a number that nobody has). `tls` is where `onelun broker setup --tls` has made its
    certificates: then the node is configured as that says, with its port for TLS and nothing else.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        address: str = "127.0.0.1",
        also_listen: tuple[str, ...] = (),
        uid: int | None = None,
        gid: int | None = None,
        tls: str | os.PathLike[str] | None = None,
    ) -> None:
        self._conf = ""
        self._temporary = directory is None
        made = tempfile.mkdtemp(prefix="onelun-broker-") if directory is None else os.fspath(directory)
        user, group = _ordinary_user()
        self.node = Node(
            directory=os.path.abspath(made),
            address=address,
            also_listen=tuple(also_listen),
            port=free_port(address),
            epmd_port=free_port("127.0.0.1"),
            dist_port=free_port("127.0.0.1"),
            uid=user if uid is None else uid,
            gid=group if gid is None else gid,
            password=secrets.token_hex(16),
            tls=tls is not None,
        )
        if tls is not None:
            os.makedirs(self.node.directory, exist_ok=True)
            for name in ("ca.pem", "broker.pem"):
                shutil.copy(os.path.join(tls, name), self.node.directory)

    @property
    def rabbitmqctl_path(self) -> str:
        """A rabbitmqctl that means this node."""
        return self.node.rabbitmqctl

    @property
    def host_port(self) -> str:
        return f"{self.node.address}:{self.node.port}"

    def url(self, user: str = "admin", password: str | None = None) -> str:
        """The AMQP URL of a user; of `admin` without a password."""
        quoted = urllib.parse.quote(self.node.password if password is None else password, safe="")
        return f"amqp://{user}:{quoted}@{self.host_port}/%2F"

    def configure(self, conf: str) -> None:
        """Add lines to rabbitmq.conf, for the next start."""
        self._conf += conf

    def set_up(
        self, *, frontends: Sequence[str] = (), nas: Sequence[str] = (), compute: Sequence[str] = ()
    ) -> dict[str, str]:
        """Do what `onelun broker setup` does, and return each user's AMQP URL."""
        granted = grants(frontends, nas, compute)
        passwords = {grant.user: secrets.token_hex(12) for grant in granted}
        asyncio.run(Broker(self.node.rabbitmqctl, "/").set_up(granted, passwords))
        return {user: self.url(user, password) for user, password in passwords.items()}

    def start(self) -> None:
        """Start the node and wait until it answers, at most four minutes. Raises BrokerError with the end of its log.

        Starting again after `stop(keep=True)` starts the same node on the same ports with what it keeps on disk.
        """
        directory = Path(self.node.directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._write_files(directory)
        pids: list[int] = []
        try:
            pids.append(
                self._spawn("epmd", "/usr/bin/epmd", "-port", str(self.node.epmd_port), "-address", "127.0.0.1")
            )
            _wait_open("127.0.0.1", self.node.epmd_port, 60)
            pids.insert(0, self._spawn("server", str(PROGRAMS / "rabbitmq-server")))
        finally:
            self.node = Node(**{**asdict(self.node), "pids": tuple(pids)})
            (directory / "broker.json").write_text(json.dumps(asdict(self.node)))
            (directory / "broker.json").chmod(0o600)
        try:
            self._wait_ready()
        except BaseException:
            self.stop(keep=not self._temporary)
            raise

    def ctl(self, *arguments: str, timeout_s: float = 300, stdin: str | None = None) -> str:
        """Run rabbitmqctl on the node and return what it prints. Raises BrokerError."""
        done = subprocess.run(
            [self.node.rabbitmqctl, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode:
            raise BrokerError(f"rabbitmqctl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout

    def stop(self, *, keep: bool = False) -> None:
        """End the node at once, and its epmd. Stopping a stopped one succeeds. `keep` keeps the directory."""
        for pid in self.node.pids:
            end_session(pid)
        self.node = Node(**{**asdict(self.node), "pids": ()})
        if self._temporary and not keep:
            shutil.rmtree(self.node.directory, ignore_errors=True)

    def __enter__(self) -> PrivateBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _tls_conf(self) -> str:
        """What `onelun broker setup --tls` tells an operator to write."""
        lines = rabbitmq_conf(self.node.port, self.node.directory).splitlines() if self.node.tls else []
        # Only our addresses are to be listened on, beside others' nodes.
        return "".join(f"{line}\n" for line in lines if not line.startswith("listeners.ssl"))

    def _write_files(self, directory: Path) -> None:
        listeners = [
            f"listeners.{'ssl' if self.node.tls else 'tcp'}.{number} = {address}:{self.node.port}"
            for number, address in enumerate((self.node.address, *self.node.also_listen), start=1)
        ]
        texts = {
            "rabbitmq.conf": RABBITMQ_CONF.format(listeners="\n".join(listeners), password=self.node.password)
            + self._tls_conf()
            + self._conf,
            "enabled_plugins": f"[{'rabbitmq_auth_mechanism_ssl' if self.node.tls else ''}].\n",
        }
        for name, text in texts.items():
            (directory / name).write_text(text)
            (directory / name).chmod(0o600)
        cookie = directory / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(secrets.token_hex(16))
            cookie.chmod(0o400)
        wrapper = directory / "rabbitmqctl"
        words = " ".join(f"{key}='{value}'" for key, value in self.node.environment().items())
        wrapper.write_text(
            RABBITMQCTL.format(
                uid=self.node.uid, gid=self.node.gid, environment=words, program=PROGRAMS / "rabbitmqctl"
            )
        )
        wrapper.chmod(0o755)
        directory.chmod(0o755)
        if os.getuid() == 0:
            for path in (directory, *directory.iterdir()):
                os.chown(path, self.node.uid, self.node.gid)

    def _spawn(self, name: str, *argv: str) -> int:
        """Start one process in a session of its own, as the node's user, its output in DIR/NAME.out."""
        words = list(argv)
        if os.getuid() == 0:
            words = ["setpriv", f"--reuid={self.node.uid}", f"--regid={self.node.gid}", "--clear-groups", "--", *words]
        # Each connection is a descriptor; the soft limit is often 1024.
        words = ["sh", "-c", 'ulimit -n 65536 2>/dev/null; exec "$@"', "sh", *words]
        with open(f"{self.node.directory}/{name}.out", "ab") as output:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **self.node.environment()},
                start_new_session=True,
            )
        # Whoever stops it waits by pid; without this, a warning would speak of a process that is still wanted.
        process.returncode = 0
        return process.pid

    def _wait_ready(self) -> None:
        limit = time.monotonic() + READY_S
        for address in (self.node.address, *self.node.also_listen):
            while not (_is_open if self.node.tls else _speaks_amqp)(address, self.node.port):
                if time.monotonic() > limit or not _alive(self.node.pids[0]):
                    raise BrokerError(f"RabbitMQ did not start on {address}:{self.node.port}:\n{self._last_words()}")
                time.sleep(0.1)

    def _last_words(self) -> str:
        words = ""
        for path in (Path(self.node.directory, "server.out"), Path(self.node.directory, "log", "rabbit.log")):
            with contextlib.suppress(OSError):
                words += path.read_text(errors="replace")[-2000:]
        return words


def start_again(directory: str) -> None:
    """Start the node of `directory` again, whose server was killed: on the same ports, with what it keeps on disk."""
    kept = json.loads(Path(directory, "broker.json").read_text())
    broker = PrivateBroker(directory)
    broker.node = Node(**{**kept, "also_listen": tuple(kept["also_listen"]), "pids": tuple(kept["pids"])})
    broker.start()


def stop_by_directory(directory: str) -> None:
    """End the node that was started in `directory`, by whomever. Without one: success."""
    with contextlib.suppress(FileNotFoundError):
        kept = json.loads(Path(directory, "broker.json").read_text())
        for pid in kept["pids"]:
            if _is_ours(pid, directory):
                end_session(pid)
        Path(directory, "broker.json").unlink()


def end_session(leader: int) -> None:
    """Kill every process of the session that `leader` leads and their children, and wait until they are gone."""
    limit = time.monotonic() + 60
    # Erlang's port programs lead sessions of their own: they are found as children, while their parent lives.
    members = _session_and_children(leader)
    while left := [pid for pid in members if _alive(pid)]:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > limit:
            raise BrokerError(f"processes {left} do not end")
        time.sleep(0.02)


# What this process was told already; nobody may listen there yet.
_GIVEN: set[int] = set()


def free_port(address: str) -> int:
    """A port that nobody uses on `address` now, and no outgoing connection is given meanwhile; each time another."""
    while True:
        # Below net.ipv4.ip_local_port_range, whose default begins at 32768: a broker listens only seconds later.
        port = 20000 + secrets.randbelow(12000)
        with (
            socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe,
            contextlib.suppress(OSError),
        ):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            if port not in _GIVEN:
                _GIVEN.add(port)
                return port


def _ordinary_user() -> tuple[int, int]:
    if os.getuid() != 0:
        return os.getuid(), os.getgid()
    with contextlib.suppress(KeyError):
        entry = pwd.getpwnam("rabbitmq")
        return entry.pw_uid, entry.pw_gid
    return 64210, 64210


def _session_and_children(leader: int) -> set[int]:
    fields = {pid: stat for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if (stat := _stat(pid))}
    members = {pid for pid, stat in fields.items() if int(stat[3]) == leader}
    while more := {pid for pid, stat in fields.items() if int(stat[1]) in members} - members:
        members |= more
    return members


def _stat(pid: int) -> list[str]:
    """State, parent, process group, session and the rest of proc(5)'s stat; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _is_ours(pid: int, directory: str) -> bool:
    """Whether `pid` is still what was started for `directory`: pids are used again."""
    try:
        return f"HOME={os.path.abspath(directory)}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    stat = _stat(pid)
    return bool(stat) and stat[0] != "Z"


def _speaks_amqp(address: str, port: int) -> bool:
    """Whether somebody answers to AMQP's protocol header with a method frame."""
    try:
        with socket.create_connection((address, port), 1) as connection:
            connection.settimeout(2)
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"
    except OSError:
        return False


def _is_open(address: str, port: int) -> bool:
    """Whether somebody listens; RabbitMQ does when all else of it runs."""
    with contextlib.suppress(OSError), socket.create_connection((address, port), 1):
        return True
    return False


def _wait_open(address: str, port: int, timeout_s: float) -> None:
    limit = time.monotonic() + timeout_s
    while time.monotonic() < limit:
        if _is_open(address, port):
            return
        time.sleep(0.02)
    raise BrokerError(f"nothing listens on {address}:{port} after {timeout_s:g} s")


def main() -> None:
    """`broker.py start DIR [--address A] [--also-listen A]...` prints admin's URL; `broker.py again|stop DIR`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("verb", choices=["start", "again", "stop"])
    parser.add_argument("directory")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--also-listen", action="append", default=[])
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--tls", metavar="DIR", help="where `onelun broker setup --tls` has made its certificates")
    given = parser.parse_args()
    if given.verb == "stop":
        stop_by_directory(given.directory)
        return
    if given.verb == "again":
        start_again(given.directory)
        return
    broker = PrivateBroker(
        given.directory,
        address=given.address,
        also_listen=tuple(given.also_listen),
        uid=given.uid,
        gid=given.gid,
        tls=given.tls,
    )
    broker.start()
    sys.stdout.write(broker.url() + "\n")


if __name__ == "__main__":
    main()
