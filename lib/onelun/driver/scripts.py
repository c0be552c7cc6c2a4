"""The helper functions of OpenNebula's scripts_common.sh, as a library: the same names, the same behaviour.

What they write goes to stderr in the form of the release (see `frame`): `error_message` is the message for oned, `log` a
line for the VM's log where the release takes one. `exec_and_log` and its kin run a command, and when it fails they write
the message and raise Failed with the status that the script is to end with.

A command is one string, cut into words as a shell's word splitting does (shlex), and never given to a shell here; the one
for another host is given to a shell there, as ssh does.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import sys
from typing import TextIO

from onelun import command
from onelun.driver.frame import Form, error_text, log_text, one_line
from onelun.errors import CommandFailed, OnelunError

_log = logging.getLogger(__name__)

# A command without a limit hangs for ever on dead storage; none of a driver's may take longer than a copy.
_LONGEST_S = 24 * 3600.0
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10")
# scripts_common.sh: killed by its timeout, a command ends with 128 + SIGTERM.
_TIMED_OUT = 143
_NOT_FOUND = 127
_KILL_S = 5.0


class Failed(OnelunError):
    """A command of a script failed and oned has been told; `status` is what the script is to end with."""

    code = "command_failed"

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence, status=status)
        self.status = status


class Script:
    """One script: its name as logs show it ("clone"), the form of its release, and where its stderr goes."""

    def __init__(
        self, name: str, form: Form, *, vm_id: int | None = None, call_id: str = "", stderr: TextIO | None = None
    ) -> None:
        """`vm_id` is whose log is meant; `call_id` tells lines apart in the frontend's own log."""
        self._name = name
        self._id = f" id={call_id}" if call_id else ""
        self._form = form
        self._vm_id = vm_id
        self._stderr = stderr or sys.stderr

    def log(self, text: str) -> None:
        """Log a message into the VM's log file, where the release takes it, and always into the frontend's."""
        self._write("INFO", text)

    def error_message(self, text: str) -> None:
        """Send the message with which the script ends to oned."""
        self._stderr.write(error_text(self._form, text))

    async def exec_and_log(self, cmd: str, message: str | None = None) -> None:
        """Run a command. When it fails, send `message` (or what the command said) and raise Failed."""
        await self._execute(shlex.split(cmd), cmd, message, _LONGEST_S)

    async def timeout_exec_and_log(self, seconds: float, cmd: str, message: str | None = None) -> None:
        """As exec_and_log, and a command that runs longer than that many seconds is killed."""
        await self._execute(shlex.split(cmd), cmd, message, seconds)

    async def ssh_exec_and_log(self, host: str, cmd: str, message: str | None = None) -> None:
        """Run a command on another host, in a shell there. When it fails, send `message` and raise Failed."""
        script = f"export LANG=C\nexport LC_ALL=C\n{cmd}\n".encode()
        await self._execute((*_SSH, "--", host, "bash", "-s"), cmd, message, _LONGEST_S, stdin=script)

    async def _execute(
        self,
        argv: tuple[str, ...] | list[str],
        cmd: str,
        message: str | None,
        seconds: float,
        stdin: bytes | None = None,
    ) -> None:
        if not argv:
            raise Failed("there is no command to run", 1)
        try:
            async with asyncio.timeout(seconds):
                result = await command.run(*argv, timeout_s=seconds + _KILL_S, stdin=stdin, check=False)
        except TimeoutError as error:
            raise self._failed(cmd, f"Timeout executing {cmd}", None, _TIMED_OUT) from error
        except CommandFailed as error:
            raise self._failed(cmd, f'Error executing "{cmd}": {error}', message, _NOT_FOUND) from error
        if result.status != 0:
            said = one_line(result.stderr)
            raise self._failed(cmd, f'Error executing "{cmd}": {said}', message, result.status)

    def _failed(self, cmd: str, text: str, message: str | None, status: int) -> Failed:
        self._write("ERROR", f'Command "{cmd}" failed: {text}')
        self.error_message(message or text)
        return Failed(message or text, status)

    def _write(self, level: str, text: str) -> None:
        _log.info("%s%s %s%s", self._name, self._id, "" if level == "INFO" else f"{level}: ", one_line(text))
        self._stderr.write(log_text(self._form, level, self._name, self._vm_id, text))


def arg_host(argument: str) -> str:
    """The host of `host:path`, up to the first colon; the whole argument when it has none, as sed leaves it."""
    return argument.partition(":")[0]


def arg_path(argument: str) -> str:
    """The path of `host:path`, behind the first colon, without repeated or trailing slashes; without a colon all is path."""
    _, colon, behind = argument.partition(":")
    path = behind if colon else argument
    words = [word for word in path.split("/") if word]
    return ("/" if path.startswith("/") else "") + "/".join(words)
