"""The helper functions of scripts_common.sh."""

from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from onelun.driver.frame import Form
from onelun.driver.scripts import Failed, Script, arg_host, arg_path


class Told:
    """A script of VM 42 called clone, and what it wrote to stderr."""

    def __init__(self, form: Form) -> None:
        self.stderr = io.StringIO()
        self.script = Script("clone", form, vm_id=42, stderr=self.stderr)

    def __str__(self) -> str:
        return self.stderr.getvalue()


@pytest.mark.parametrize(
    ("form", "expected"), [(Form.LOGGED, "INFO: 42 clone: Creating x\n"), (Form.PLAIN, ""), (Form.DELIMITED, "")]
)
def test_log_goes_where_the_release_takes_it(form: Form, expected: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    told = Told(form)

    told.script.log("Creating x")

    assert str(told) == expected
    assert "Creating x" in caplog.text


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (Form.DELIMITED, "ERROR MESSAGE --8<------\nFile 'x' not found\nERROR MESSAGE ------>8--\n"),
        (Form.PLAIN, "File 'x' not found\n"),
        (Form.LOGGED, "File 'x' not found\n"),
    ],
)
def test_an_error_message_has_the_separators_of_the_release(form: Form, expected: str) -> None:
    told = Told(form)

    told.script.error_message("File 'x' not found")

    assert str(told) == expected


@pytest.mark.parametrize(
    ("argument", "host", "path"),
    [
        ("host01:/var/lib/one//datastores/0/42/", "host01", "/var/lib/one/datastores/0/42"),
        ("host01:nas1/tank/one-7", "host01", "nas1/tank/one-7"),
        ("host01:/a:b", "host01", "/a:b"),
        ("host01", "host01", "host01"),
        ("/some//path", "/some//path", "/some/path"),
        ("", "", ""),
    ],
)
def test_an_argument_has_a_host_and_a_path(argument: str, host: str, path: str) -> None:
    assert (arg_host(argument), arg_path(argument)) == (host, path)


async def test_a_command_that_succeeds_says_nothing(tmp_path: Path) -> None:
    told = Told(Form.PLAIN)

    await told.script.exec_and_log(f"touch '{tmp_path}/a b'")

    assert str(told) == ""
    assert (tmp_path / "a b").exists()


async def test_a_command_that_fails_ends_the_script_with_its_status() -> None:
    told = Told(Form.LOGGED)

    with pytest.raises(Failed) as raised:
        await told.script.exec_and_log("ls /nowhere")

    assert raised.value.status == 2
    said = "ls: cannot access '/nowhere': No such file or directory"
    assert str(told) == (
        f'ERROR: 42 clone: Command "ls /nowhere" failed: Error executing "ls /nowhere": {said}\n'
        f'Error executing "ls /nowhere": {said}\n'
    )


async def test_a_message_of_one_s_own_replaces_what_the_command_said() -> None:
    told = Told(Form.DELIMITED)

    with pytest.raises(Failed, match="cannot list"):
        await told.script.exec_and_log("ls /nowhere", "cannot list")

    assert str(told) == "ERROR MESSAGE --8<------\ncannot list\nERROR MESSAGE ------>8--\n"


async def test_a_command_is_not_given_to_a_shell(tmp_path: Path) -> None:
    told = Told(Form.PLAIN)

    await told.script.exec_and_log(f"echo a > {tmp_path}/b ; touch {tmp_path}/c")

    assert list(tmp_path.iterdir()) == []


async def test_a_command_that_does_not_exist_is_an_error() -> None:
    told = Told(Form.PLAIN)

    with pytest.raises(Failed) as raised:
        await told.script.exec_and_log("no-such-command x")

    assert raised.value.status == 127
    assert str(told).startswith('Error executing "no-such-command x": cannot run no-such-command')


async def test_a_command_that_takes_too_long_is_killed() -> None:
    told = Told(Form.PLAIN)
    began = time.monotonic()

    with pytest.raises(Failed) as raised:
        await told.script.timeout_exec_and_log(0.2, "sleep 60")

    assert raised.value.status == 143
    assert str(told) == "Timeout executing sleep 60\n"
    assert time.monotonic() - began < 50


async def test_a_command_within_its_time_succeeds() -> None:
    told = Told(Form.PLAIN)

    await told.script.timeout_exec_and_log(20, "true")

    assert str(told) == ""


async def test_a_command_on_another_host_goes_there_by_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from onelun.driver import scripts

    ssh = tmp_path / "ssh"
    ssh.write_text('#!/bin/sh\necho "$@" > "$(dirname "$0")/argv"\nexec sh -s\n')
    ssh.chmod(0o755)
    monkeypatch.setattr(scripts, "_SSH", (str(ssh), "-o", "BatchMode=yes"))
    told = Told(Form.PLAIN)

    await told.script.ssh_exec_and_log("host01", f"echo $LC_ALL > {tmp_path}/out")
    with pytest.raises(Failed) as raised:
        await told.script.ssh_exec_and_log("host01", "exit 9", "it went wrong")

    assert (tmp_path / "argv").read_text() == "-o BatchMode=yes -- host01 bash -s\n"
    assert (tmp_path / "out").read_text() == "C\n"
    assert (raised.value.status, str(told)) == (9, "it went wrong\n")
    assert os.path.exists(ssh)
