"""The stub itself: what it costs, whom it trusts, and what it does when the frontend is not there, or goes."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.scripts.conftest import CHECKOUT, CLOUD, FrontEnd
from tests.support.fake_nas import Volume
from tests.support.recorded import Recorded, datastore_call, transfer_call
from tests.support.requires import requires

from onelun.driver.action import ACTIONS
from onelun.driver.frame import takes_stdin
from onelun.driver.running import COPIES
from onelun.model import Kind, Owner
from onelun.rpc import message as m

DISK = "host01:/var/lib/one/datastores/103/0/disk.1"
LN = transfer_call("6.10", "ln", "vm:nas1/tank/one-9", DISK, "0", "102")
IMAGE = Owner(kind=Kind.IMAGE, cloud=CLOUD, image_id=9)
# What the interpreter has loaded anyway, and what is built into it.
CHEAP = {"_signal", "_socket", "posix", "sys", "time", "stub", "__main__"}


def wait_for(true: Callable[[], object], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, f"it did not come to that within {seconds} s"
        time.sleep(0.01)


@pytest.mark.parametrize("name", sorted(ACTIONS))
def test_every_action_has_an_executable_with_a_title(name: str) -> None:
    path = CHECKOUT / name.replace("/", "/onelun/")

    lines = path.read_text().splitlines()

    assert os.access(path, os.X_OK)
    assert lines[0] == "#!/usr/bin/python3 -IS"
    assert lines[1].startswith('"""')
    assert lines[-1] == f'act("{name}")'


def test_the_stub_and_the_frontend_agree_which_actions_copy_and_which_have_a_document() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import stub; print(*sorted(stub.COPIES));"
        "print(*sorted((stub.MONITOR, *stub.MIGRATIONS + stub.BACKUPS)))"
    )

    result = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", code, str(CHECKOUT / "datastore/onelun")],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    copies, documents = result.stdout.splitlines()
    assert copies.split() == sorted(COPIES)
    assert documents.split() == sorted(
        name for name in ACTIONS if name.startswith("tm/") and takes_stdin(name, ("103",))
    )


def test_the_stub_imports_nothing_but_what_is_built_in(front: FrontEnd) -> None:
    front.start("6.10")
    code = (
        "import sys; before = set(sys.modules); sys.path.insert(0, sys.argv[1]); sys.argv = ['ln', 'a', 'b']; import posix, stub;"
        "posix._exit = lambda status: print(','.join(sorted(set(sys.modules) - before)));"
        "stub.act('tm/ln')"
    )

    result = subprocess.run(
        ["/usr/bin/python3", "-IS", "-c", code, str(CHECKOUT / "datastore/onelun")],
        env=front.environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert set(result.stdout.strip().split(",")) <= CHEAP


@pytest.mark.parametrize("name", ["stub.py", "direct.py"])
def test_the_stub_is_python_3_6(name: str) -> None:
    import ast

    source = (CHECKOUT / "datastore/onelun" / name).read_text()

    ast.parse(source, feature_version=(3, 6))


def test_the_socket_is_for_its_user_alone(front: FrontEnd) -> None:
    front.start("6.10")

    assert stat.S_IMODE(front.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(front.socket.parent.stat().st_mode) == 0o700


@pytest.fixture
def public(front: FrontEnd) -> Iterator[FrontEnd]:
    """A frontend whose socket anybody may connect to, with a copy of the scripts that anybody may read."""
    requires("root")
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        front.socket = Path(name) / "run" / "frontend.sock"
        for kind in ("datastore", "tm"):
            shutil.copytree(CHECKOUT / kind / "onelun", Path(name) / kind / "onelun")
        front.start("6.10")
        front.socket.chmod(0o666)
        front.socket.parent.chmod(0o755)
        yield front
        front.stop()


def as_nobody(public: FrontEnd, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, env=public.environment(), capture_output=True, text=True, timeout=120, user=65534)


def test_another_user_s_frontend_is_not_trusted(public: FrontEnd) -> None:
    scripts = public.socket.parents[1]

    result = as_nobody(public, str(scripts / "tm/onelun/ln"), *LN.argv)

    assert result.returncode == 1
    assert result.stderr == f"onelun: {public.socket} is served by user 0, not by 65534: nothing was sent\n"
    assert public.cloud.asked == []


def test_another_user_s_action_is_not_run(public: FrontEnd) -> None:
    call = (
        b"1\0" + b"3f0c5a4e-6f0f-4b62-9d39-2d1f6a1c7b11" + b"\0000\0tm/ln\0" + b"\0".join(a.encode() for a in LN.argv)
    )
    frames = b"C" + len(call).to_bytes(4, "big") + call + b"G" + bytes(4)
    code = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX)\n"
        "s.connect(sys.argv[1])\n"
        f"try: s.sendall({frames!r}); print(s.recv(1))\n"
        "except OSError: print(b'')\n"
    )

    result = as_nobody(public, "/usr/bin/python3", "-c", code, str(public.socket))

    assert (result.stdout, result.stderr) == ("b''\n", "")
    assert public.cloud.asked == []


@pytest.mark.parametrize("stdin", ["closed", "terminal", "endless"])
def test_an_action_without_a_document_never_waits_for_stdin(front: FrontEnd, stdin: str) -> None:
    front.start("6.10")
    front.run(datastore_call("6.10", "mkfs"))
    argv = [str(CHECKOUT / "tm/onelun/ln"), *LN.argv]
    reader, writer = os.pipe() if stdin != "terminal" else os.openpty()
    if stdin == "closed":
        argv = ["/bin/sh", "-c", 'exec 0<&-; exec "$@"', "sh", *argv]

    try:
        result = subprocess.run(
            argv, stdin=reader, env=front.environment(), capture_output=True, text=True, timeout=120
        )
    finally:
        os.close(reader)
        os.close(writer)

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("stdin", ["closed", "terminal"])
def test_an_action_that_lacks_its_document_says_so(front: FrontEnd, stdin: str) -> None:
    front.start("6.10")
    argv = [str(CHECKOUT / "datastore/onelun/mkfs"), "9"]
    reader, writer = os.openpty()
    if stdin == "closed":
        argv = ["/bin/sh", "-c", 'exec 0<&-; exec "$@"', "sh", *argv]

    try:
        result = subprocess.run(
            argv, stdin=reader, env=front.environment(), capture_output=True, text=True, timeout=120
        )
    finally:
        os.close(reader)
        os.close(writer)

    assert (result.returncode, result.stderr) == (
        1,
        "cannot make image 9: the action's document is missing: nothing came on stdin\n",
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cancels_the_action(front: FrontEnd, number: int) -> None:
    front.start("6.10")
    front.hang_next()

    with front.begin(LN) as process:
        wait_for(lambda: front.cloud.asked)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)

    assert process.returncode == 1
    assert stderr.decode() == ("cannot link nas1/tank/one-9: it was stopped, and what it had begun was undone\n")
    assert front.cloud.cancelled == ["map_zvol"]


def test_a_killed_stub_cancels_its_action(front: FrontEnd) -> None:
    front.start("6.10")
    front.hang_next()

    with front.begin(LN) as process:
        wait_for(lambda: front.cloud.asked)
        process.kill()

    wait_for(lambda: front.cloud.cancelled)


def test_the_same_call_waits_until_what_a_killed_stub_began_is_undone(front: FrontEnd) -> None:
    front.cloud.volumes["nas1", "tank", "one-9"] = Volume(1 << 20, IMAGE)
    front.start("6.10")
    clone = transfer_call("6.10", "clone", "vm:nas1/tank/one-9", DISK, "0", "102")
    front.hang_next()
    front.cloud.hanging = m.MapZvol
    with front.begin(clone) as process:
        wait_for(lambda: front.cloud.requests(m.MapZvol))
        front.cloud.hanging = m.RemoveDisk
        process.kill()
    wait_for(lambda: front.cloud.requests(m.RemoveDisk))

    with front.begin(clone) as again:
        with pytest.raises(subprocess.TimeoutExpired):
            again.wait(1.0)
        before = len(front.cloud.requests(m.CloneZvol))
        front.release()
        assert again.wait(60) == 0

    assert before == 1
    assert ("nas1", "tank", "one-9-0-1") in front.cloud.volumes


def test_a_frontend_that_comes_back_is_asked_the_same_again(front: FrontEnd) -> None:
    front.finish_s = 0.0
    front.start("6.10")
    front.run(datastore_call("6.10", "mkfs"))
    front.hang_next()

    with front.begin(LN) as process:
        wait_for(lambda: front.cloud.requests(m.MapZvol))
        front.stop()
        front.cloud.hang = None
        still = process.poll()
        front.start("6.10")
        stdout, stderr = process.communicate(timeout=120)

    ids = [id_ for _, request, id_ in front.cloud.asked if isinstance(request, m.MapZvol)]
    assert still is None
    assert (stdout, stderr, process.returncode) == (b"", b"", 0)
    assert len(ids) == 2
    assert len(set(ids)) == 1


def test_a_stub_whose_caller_is_gone_does_not_wait_for_a_frontend(front: FrontEnd, tmp_path: Path) -> None:
    front.start("6.10")
    front.hang_next()
    pid = tmp_path / "pid"
    command = f"{CHECKOUT}/tm/onelun/ln {' '.join(LN.argv)} & echo $! > {pid}; wait"

    with subprocess.Popen(["/bin/sh", "-c", command], env=front.environment(), stderr=subprocess.DEVNULL) as shell:
        wait_for(lambda: front.cloud.asked)
        shell.kill()
    front.stop()

    stub = int(pid.read_text())
    wait_for(lambda: not os.path.exists(f"/proc/{stub}"))


def test_a_frontend_that_dies_in_the_middle_is_not_replaced_by_another_process(tmp_path: Path) -> None:
    """After the first byte nothing is run directly: the frontend may have acted on it."""
    path = tmp_path / "frontend.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        environment = {"ONELUN_SOCKET": str(path), "PATH": os.environ["PATH"]}
        with subprocess.Popen([str(CHECKOUT / "tm/onelun/ln"), *LN.argv], env=environment) as process:
            connection, _ = listening.accept()
            connection.recv(1)
            connection.close()
            again, _ = listening.accept()
            head = again.recv(5)
            call = again.recv(int.from_bytes(head[1:], "big"))
            again.sendall(b"O" + bytes(4) + b"S" + (1).to_bytes(4, "big") + b"3")
            status = process.wait(60)
            again.close()

    version, _, attempt, name, *argv = call.split(b"\0")
    assert (version, attempt, name) == (b"1", b"1", b"tm/ln")
    assert argv == [argument.encode() for argument in LN.argv]
    assert status == 3


def test_arguments_of_any_bytes_arrive_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "frontend.sock"
    wanted = [b"\xff\xfe", "é".encode(), b"", b"a b\nc"]
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        environment = {"ONELUN_SOCKET": str(path), "LC_ALL": "C"}
        with subprocess.Popen([str(CHECKOUT / "tm/onelun/ln").encode(), *wanted], env=environment) as process:
            connection, _ = listening.accept()
            head = connection.recv(5)
            call = connection.recv(int.from_bytes(head[1:], "big"))
            connection.sendall(b"S" + (1).to_bytes(4, "big") + b"0")
            process.wait(60)
            connection.close()

    assert call.split(b"\0")[4:] == wanted


def test_many_at_once_all_succeed(front: FrontEnd) -> None:
    front.start("6.10")
    front.run(datastore_call("6.10", "mkfs"))
    calls = [
        transfer_call("6.10", "ln", "vm:nas1/tank/one-9", f"host01:/var/lib/one/datastores/103/0/disk.{n}", "0", "102")
        for n in range(100)
    ]

    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        runs = list(pool.map(front.run, calls))

    assert set(runs) == {("", "", 0)}


def test_a_second_frontend_leaves_the_first_alone(front: FrontEnd) -> None:
    import asyncio

    from onelun.errors import Conflict
    from onelun.frontend.server import Frontend

    front.start("6.10")

    with pytest.raises(Conflict, match="another frontend serves"):
        asyncio.run(Frontend(front.context("6.10")).serve())

    assert front.run(datastore_call("6.10", "mkfs"))[2] == 0


def test_a_stale_socket_is_replaced(front: FrontEnd) -> None:
    front.socket.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(front.socket))

    front.start("6.10")

    assert front.run(datastore_call("6.10", "mkfs"))[2] == 0


def test_a_file_in_the_way_of_the_socket_is_left_alone(front: FrontEnd) -> None:
    import asyncio

    from onelun.errors import Rejected
    from onelun.frontend.server import Frontend

    front.socket.parent.mkdir(mode=0o700)
    front.socket.write_text("mine")

    with pytest.raises(Rejected, match="is in the way of the socket"):
        asyncio.run(Frontend(front.context("6.10")).serve())

    assert front.socket.read_text() == "mine"


def test_a_stopped_frontend_leaves_no_socket(front: FrontEnd) -> None:
    front.start("6.10")

    front.stop()

    assert not front.socket.exists()


def test_a_stopping_frontend_lets_an_action_end(front: FrontEnd) -> None:
    front.finish_s = 40.0
    front.start("6.10")
    front.run(datastore_call("6.10", "mkfs"))
    front.hang_next()

    with front.begin(LN) as process:
        wait_for(lambda: front.cloud.requests(m.MapZvol))
        stopping = threading.Thread(target=front.stop)
        stopping.start()
        time.sleep(0.3)
        front.release()
        stdout, stderr = process.communicate(timeout=120)
        stopping.join(60)

    assert (stdout, stderr, process.returncode) == (b"", b"", 0)


class Direct:
    """A tree with the scripts and an interpreter that tells how it was called."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for kind in ("datastore", "tm"):
            (directory / kind).mkdir(parents=True)
            subprocess.run(["cp", "-r", str(CHECKOUT / kind / "onelun"), str(directory / kind)], check=True)
        self.python = directory / ".venv" / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        self.python.write_text('#!/bin/sh\nsleep "${NAP:-0}"\necho "$@"\ncat\necho said >&2\nexit 7\n')
        self.python.chmod(0o755)
        (directory / "run").mkdir(mode=0o700)

    def environment(self, **more: str) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "ONELUN_SOCKET": str(self.directory / "run" / "frontend.sock"), **more}

    def run(self, call: Recorded, **more: str) -> tuple[str, str, int]:
        path = self.directory / call.name.replace("/", "/onelun/")
        result = subprocess.run(
            [str(path), *call.argv], input=call.stdin, env=self.environment(**more), capture_output=True, timeout=300
        )
        return result.stdout.decode(), result.stderr.decode(), result.returncode


@pytest.fixture
def direct(tmp_path: Path) -> Direct:
    return Direct(tmp_path / "tree")


def test_without_a_frontend_the_installed_interpreter_runs_the_action(direct: Direct) -> None:
    run = direct.run(Recorded("datastore/mkfs", ("9",), b"the document"))

    assert run == ("-I -m onelun.cli.main action -- datastore/mkfs 9\nthe document", "said\n", 7)


def test_a_person_runs_an_action_directly(front: FrontEnd, direct: Direct) -> None:
    front.start("6.10")

    run = direct.run(Recorded("tm/ln", ("a", "b"), b""), ONELUN_DIRECT="1", ONELUN_SOCKET=str(front.socket))

    assert run == ("-I -m onelun.cli.main action -- tm/ln a b\n", "said\n", 7)
    assert front.cloud.asked == []


def test_without_frontend_and_interpreter_there_is_one_sentence(direct: Direct) -> None:
    direct.python.unlink()

    stdout, stderr, status = direct.run(Recorded("tm/ln", ("a", "b"), b""))

    assert (stdout, status) == ("", 1)
    assert stderr == (
        f"onelun: onelun-frontend does not run the action ({direct.directory}/run/frontend.sock: No such file or directory)"
        " and no interpreter of onelun is installed\n"
    )


def test_only_a_few_run_directly_at_once(direct: Direct) -> None:
    began = time.monotonic()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: direct.run(Recorded("tm/ln", ("a",), b""), NAP="1"), range(8)))

    assert {status for _, _, status in runs} == {7}
    assert time.monotonic() - began >= 2.0, "more than 4 ran at once"


def test_running_directly_leaves_no_file(direct: Direct) -> None:
    (direct.directory / "run").rmdir()
    before = set(Path("/tmp").glob(f"onelun-{os.getuid()}"))
    tree = set(direct.directory.rglob("*"))

    direct.run(Recorded("tm/ln", ("a",), b""))

    assert {path for path in direct.directory.rglob("*") if "__pycache__" not in path.parts} <= tree
    assert set(Path("/tmp").glob(f"onelun-{os.getuid()}")) == before
