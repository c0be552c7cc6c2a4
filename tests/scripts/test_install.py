"""install.sh into a directory of its own: what it puts where, what a repeat does, and that nothing is left afterwards."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.scripts.conftest import CHECKOUT, FrontEnd
from tests.support.oned_conf import ONED_CONF, VMM_EXECRC
from tests.support.recorded import datastore_call
from tests.support.wheels import write_wheels

# Each makes whole environments, on a machine that may have other work.
pytestmark = pytest.mark.timeout(300)

NEEDED = ["pika", "lxml", "click", "msgspec", "rich", "rtslib-fb"]
USER = pwd.getpwuid(os.getuid()).pw_name
UUID = "4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01"


class Machine:
    """A front-end with OpenNebula 7.0 below a directory."""

    def __init__(self, root: Path, wheels: Path) -> None:
        self.root = root
        self._wheels = wheels
        for path in (
            "var/lib/one/remotes/tm/shared",
            "var/lib/one/remotes/datastore/fs",
            "etc/one/vmm_exec",
            "etc/systemd/system",
        ):
            (root / path).mkdir(parents=True)
        self.remotes = root / "var/lib/one/remotes"
        (self.remotes / "VERSION").write_text("7.0.2\n")
        self.oned_conf = root / "etc/one/oned.conf"
        self.oned_conf.write_text(ONED_CONF[7, 0])
        (root / "etc/one/vmm_exec/vmm_execrc").write_text(VMM_EXECRC)
        self.settings = root / "etc/onelun/onelun.toml"

    def install(self, *options: str, status: int = 0, before: Sequence[str] = (), **more: str) -> str:
        """Run install.sh, behind the command `before`; what it said."""
        result = subprocess.run(
            [*before, str(CHECKOUT / "install.sh"), "--root", str(self.root), "--user", USER, *options],
            env={"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(self._wheels), **more},
            capture_output=True,
            text=True,
            timeout=280,
        )
        said = result.stdout + result.stderr
        assert result.returncode == status, said
        return said

    def onelun(self, *arguments: str, status: int = 0) -> str:
        """Run the installed command."""
        result = subprocess.run(
            [str(self.root / "opt/onelun/venv/bin/python"), "-I", "-m", "onelun.cli.main", *arguments],
            env={"ONELUN_CONFIG": str(self.settings), "ONE_LOCATION": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert result.returncode == status, result.stdout + result.stderr
        return result.stdout + result.stderr

    def register(self, *options: str) -> None:
        files = ("--oned-conf", str(self.oned_conf), "--vmm-execrc", str(self.root / "etc/one/vmm_exec/vmm_execrc"))
        self.onelun("register", *files, "--opennebula-version", "7.0", "--apply", *options)

    def everything(self) -> dict[str, tuple[int, int, int, int, str]]:
        """All that is there: mode, owner, inode, time of the last change, and the end of a link."""
        found = {}
        for path in self.root.rglob("*"):
            facts = path.lstat()
            kept = facts.st_mtime_ns if path.is_file() else 0
            end = os.readlink(path) if path.is_symlink() else ""
            found[str(path.relative_to(self.root))] = (facts.st_mode, facts.st_uid, facts.st_ino, kept, end)
        return found


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheels")
    write_wheels(NEEDED, directory)
    return directory


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Machine:
    """A machine on which the front-end was installed; tests leave it as it is."""
    machine = Machine(tmp_path_factory.mktemp("machine"), wheels)
    machine.install("--frontend")
    return machine


@pytest.fixture
def another(tmp_path: Path, installed: Machine, wheels: Path) -> Machine:
    """A machine that has the program, and no role yet."""
    machine = Machine(tmp_path, wheels)
    shutil.copytree(installed.root / "opt", tmp_path / "opt", symlinks=True)
    shutil.rmtree(tmp_path / "opt/onelun/roles")
    shutil.rmtree(tmp_path / "opt/onelun/settings")
    return machine


def test_what_oned_runs_is_compiled_and_no_link(installed: Machine) -> None:
    datastore = installed.remotes / "datastore/onelun"
    compiled = next((datastore / "__pycache__").glob("stub.*.pyc"))
    source = datastore / "stub.py"

    _, flags, time, size = struct.unpack("<4sIII", compiled.read_bytes()[:16])

    assert (flags, time, size) == (0, int(source.stat().st_mtime), source.stat().st_size)
    assert str(installed.root).encode() not in compiled.read_bytes()
    for room in ("datastore", "tm"):
        names = {path.name for path in (CHECKOUT / room / "onelun").iterdir()} - {"__pycache__"}
        assert {path.name for path in (installed.remotes / room / "onelun").iterdir()} - {"__pycache__"} == names
    assert not any(path.is_symlink() for path in installed.remotes.rglob("*"))
    assert (datastore / "mkfs").stat().st_mode & 0o777 == 0o755


def test_an_installed_script_does_its_work(installed: Machine, front: FrontEnd) -> None:
    front.scripts = installed.remotes
    front.start("7.5")

    made = front.run(datastore_call("7.5", "mkfs"))

    assert (made[0], made[2]) == ("nas1/tank/one-9\n", 0)


def test_the_settings_can_be_read_and_hold_a_uuid_of_their_own(installed: Machine) -> None:
    shown = installed.onelun("config", "show")

    assert re.search(r"frontend\.cloud = '[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}'", shown)
    assert "frontend.opennebula_version = '7.0.2'" in shown
    assert installed.settings.stat().st_mode & 0o777 == 0o640


def test_the_front_end_has_the_name_that_oned_gives_it(tmp_path: Path, another: Machine) -> None:
    """oned takes the canonical name (src/nebula/Nebula.cc); a Debian machine has its whole name first in /etc/hosts."""
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.1.1 one.example.org one\n")
    script = 'hostname one; mount --bind "$0" /etc/hosts; exec "$@"'
    apart = ["unshare", "--uts", "--mount", "--propagation", "private", "--", "sh", "-ec", script, str(hosts)]

    another.install("--frontend", before=apart)

    assert 'names = ["one.example.org", "one"]\n' in another.settings.read_text()


def test_the_command_names_the_environment_of_the_package(installed: Machine) -> None:
    command = installed.root / "opt/onelun/venv/bin/onelun"

    assert os.readlink(installed.root / "usr/bin/onelun") == "/opt/onelun/venv/bin/onelun"
    assert command.read_text().startswith("#!/opt/onelun/venv/bin/python -I\n")
    assert not list(installed.root.glob("opt/onelun/venv/lib/*/site-packages/pip")), "it changes only as a whole"


def test_a_repeat_changes_nothing(installed: Machine) -> None:
    before = installed.everything()

    installed.install("--frontend")

    assert installed.everything() == before


def test_what_an_operator_wrote_stays(another: Machine) -> None:
    machine = another
    machine.settings.parent.mkdir()
    machine.settings.write_text(f'[frontend]\ncloud = "{UUID}" # ours')

    said = machine.install("--frontend")

    assert machine.settings.read_text() == f'[frontend]\ncloud = "{UUID}" # ours'
    assert f"--cloud {UUID}" in said, "the other front-ends get the same"


def test_a_role_that_comes_later_gets_a_section_and_a_broker_user_of_its_own(another: Machine) -> None:
    machine = another
    machine.settings.parent.mkdir()
    ours = f'[broker]\nurl = "amqp://frontend:secret@127.0.0.1/"\n[frontend]\ncloud = "{UUID}" # ours'
    machine.settings.write_text(ours)
    machine.settings.chmod(0o640)

    said = machine.install("--compute")
    once = machine.settings.read_text()
    machine.install("--compute", "--frontend")

    assert "/etc/onelun/onelun.toml: a section [compute] was added at its end" in said
    assert once.startswith(f"{ours}\n\n[compute]\n")
    assert machine.settings.read_text() == once
    assert machine.settings.stat().st_mode & 0o777 == 0o640
    shown = machine.onelun("config", "show")
    assert "broker.url = 'amqp://frontend:***@127.0.0.1/'" in shown
    assert re.search(r"compute\.broker_url = 'amqp://compute\.[^:]+:\*\*\*@FRONT-END:5672/%2F'", shown)


def test_a_configuration_that_is_no_toml_is_left_as_it_is(another: Machine) -> None:
    machine = another
    machine.settings.parent.mkdir()
    machine.settings.write_text("[frontend\n")

    said = machine.install("--nas")

    assert "/etc/onelun/onelun.toml is no TOML: mend it, and add a section [nas]" in said
    assert machine.settings.read_text() == "[frontend\n"


def test_one_machine_may_have_all_roles_and_leaves_no_trace(tmp_path: Path, wheels: Path) -> None:
    machine = Machine(tmp_path, wheels)
    before = machine.everything()

    machine.install("--frontend", "--nas", "--compute", "--cloud", UUID)
    machine.install("--frontend", "--nas", "--compute")

    shown = machine.onelun("config", "show")
    assert f"frontend.cloud = '{UUID}'" in shown
    assert "nas.pools.tank.dataset = 'tank/onelun'" in shown
    assert "compute.run = '/run/onelun-compute'" in shown
    machine.register()
    assert "run `onelun register --remove --apply`" in machine.install("--frontend", "--uninstall", status=1)
    machine.register("--remove")
    machine.install("--compute", "--uninstall")
    assert machine.settings.exists(), "without --purge the settings stay"
    machine.install("--frontend", "--nas", "--compute", "--uninstall", "--purge")
    machine.install("--frontend", "--nas", "--compute", "--uninstall", "--purge")
    left = {path for path in machine.everything() if path not in before}
    assert left <= {"opt", "usr", "usr/bin", "var/lib/onelun"}
    assert machine.oned_conf.read_text() == ONED_CONF[7, 0]


def test_a_newer_release_takes_the_place_of_the_one_before(another: Machine) -> None:
    machine = another
    machine.install("--frontend")
    older = machine.remotes / "tm/onelun/older"
    older.write_text("")
    site = next(machine.root.glob("opt/onelun/venv/lib/*/site-packages"))
    (site / "onelun/older.py").write_text("")
    (machine.root / "opt/onelun/venv/.made-from").write_text("another\n")
    (machine.remotes / "datastore/onelun/stub.py").write_text("")

    machine.install("--frontend", PIP_FIND_LINKS="/nowhere")

    assert not older.exists()
    assert not (site / "onelun/older.py").exists()
    assert (machine.remotes / "datastore/onelun/stub.py").read_bytes() == (
        CHECKOUT / "datastore/onelun/stub.py"
    ).read_bytes()
    assert "onelun" in machine.onelun("--version")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "say what this machine is: --frontend, --nas or --compute"),
        (("--front",), "there is no option --front"),
        (("--frontend", "--cloud"), "--cloud needs an argument"),
        (("--frontend", "--cloud", "one"), "--cloud is 'one', which is no UUID"),
        (("--compute", "--check"), "compute: not installed here: install.sh --compute"),
    ],
)
def test_a_call_that_cannot_be_meant_changes_nothing(
    tmp_path: Path, wheels: Path, options: tuple[str, ...], sentence: str
) -> None:
    machine = Machine(tmp_path, wheels)
    before = machine.everything()

    said = machine.install(*options, status=1)

    assert sentence in said
    assert machine.everything() == before


def test_a_machine_without_opennebula_is_no_front_end(tmp_path: Path, wheels: Path) -> None:
    machine = Machine(tmp_path, wheels)

    said = machine.install("--frontend", status=1, ONE_LOCATION="/srv/cloud")

    assert "there is no /srv/cloud/var/remotes/tm: is this OpenNebula's front-end?" in said


def test_a_machine_that_is_below_one_location_is_served_there(another: Machine) -> None:
    machine = another
    (machine.root / "srv").mkdir()
    (machine.root / "var/lib/one").rename(machine.root / "srv/var")

    machine.install("--frontend", ONE_LOCATION="/srv")

    assert (machine.root / "srv/var/remotes/tm/onelun/clone").exists()
    assert "frontend.datastores = '/srv/var/datastores'" in machine.onelun("config", "show")


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    return package(tmp_path_factory.mktemp("packages"), wheels)


def package(directory: Path, wheels: Path) -> Path:
    environment = {"PATH": os.environ["PATH"], "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    subprocess.run([str(CHECKOUT / "scripts/package"), str(directory)], env=environment, check=True, timeout=280)
    return directory


@pytest.mark.timeout(600)
def test_the_same_tree_makes_the_same_packages(packages: Path, tmp_path: Path, wheels: Path) -> None:
    again = package(tmp_path, wheels)

    made = {path.name: path.read_bytes() for path in packages.iterdir()}
    assert len(made) == 4
    assert {path.name for path in again.iterdir() if path.read_bytes() != made[path.name]} == set()


def test_packages_hold_a_role_each_and_the_program_once(packages: Path) -> None:
    held = {}
    for package in packages.glob("*.deb"):
        listed = subprocess.run(["dpkg-deb", "-c", str(package)], capture_output=True, text=True, check=True).stdout
        held[package.name.split("_")[0]] = {line.split(maxsplit=5)[5] for line in listed.splitlines()}

    assert set(held) == {"onelun", "onelun-frontend", "onelun-nas", "onelun-compute"}
    assert "./usr/bin/onelun -> /opt/onelun/venv/bin/onelun" in held["onelun"]
    assert "./var/lib/one/remotes/tm/onelun/clone" in held["onelun-frontend"]
    assert not any(" -> " in path for path in held["onelun-frontend"]), "nothing under remotes is a link"
    for role in ("frontend", "nas", "compute"):
        assert f"./lib/systemd/system/onelun-{role}.service" in held[f"onelun-{role}"]
    files = [path for paths in held.values() for path in paths if not path.endswith("/")]
    assert len(files) == len(set(files)), "two packages have the same file"
