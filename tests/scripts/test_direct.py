"""An action in a process of its own: the same sentences, and nothing else on stderr unless a person asks."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.recorded import RELEASES, Recorded, document, error, transfer_call
from tests.support.tgt import free_port

LN = ("vm:nas1/tank/one-9", "host01:/var/lib/one/datastores/103/0/disk.1")


def configuration(directory: Path, release: str) -> Path:
    path = directory / "onelun.toml"
    path.write_text(
        f"""
        [broker]
        url = "amqp://frontend:secret@127.0.0.1:{free_port()}/%2F"
        [limits]
        accept_s = 0.5
        [frontend]
        cloud = "3f0c5a4e-6f0f-4b62-9d39-2d1f6a1c7b11"
        opennebula_version = "{release}"
        socket = "{directory}/run/frontend.sock"
        nas = ["nas1"]
        names = ["vm"]
        hosts = {{ host01 = "node1" }}
        """
    )
    return path


def run(config: Path, call: Recorded, **more: str) -> tuple[str, str, int]:
    result = subprocess.run(
        [sys.executable, "-m", "onelun.cli.main", "action", "--", call.name, *call.argv],
        input=call.stdin,
        env={"PATH": os.environ["PATH"], "ONELUN_CONFIG": str(config), "PYTHONPATH": os.pathsep.join(sys.path), **more},
        capture_output=True,
        timeout=300,
    )
    return result.stdout.decode(), result.stderr.decode(), result.returncode


@pytest.mark.parametrize("release", RELEASES)
def test_bad_arguments_are_told_in_the_form_of_the_release(tmp_path: Path, release: str) -> None:
    config = configuration(tmp_path, release)

    told = run(config, transfer_call(release, "ln", "vm:onelun/one-9", LN[1], "0", "102"))

    sentence = "'onelun/one-9' is no SOURCE of onelun: it should be NAS/POOL/VOLUME, such as nas1/tank/one-7"
    assert told == ("", error(release, f"cannot link onelun/one-9: {sentence}"), 1)


def test_a_broker_that_is_down_is_one_sentence(tmp_path: Path) -> None:
    config = configuration(tmp_path, "6.10")
    began = time.monotonic()

    stdout, stderr, status = run(config, transfer_call("6.10", "ln", *LN, "0", "102"))

    assert (stdout, status) == ("", 1)
    assert stderr.startswith("cannot link nas1/tank/one-9: ")
    assert stderr.count("\n") == 1
    assert "secret" not in stderr
    assert time.monotonic() - began < 200


def test_a_person_who_asks_gets_the_log(tmp_path: Path) -> None:
    config = configuration(tmp_path, "6.10")

    _, stderr, status = run(config, transfer_call("6.10", "ln", *LN, "0", "102"), ONELUN_DIRECT="1")

    assert status == 1
    assert "onelun.driver.action" in stderr
    assert stderr.splitlines()[-1].startswith("cannot link nas1/tank/one-9: ")


@pytest.mark.parametrize("argv", [LN, (*LN, "0", "102")])
def test_a_configuration_that_is_not_there_is_one_sentence(tmp_path: Path, argv: tuple[str, ...]) -> None:
    told = run(tmp_path / "missing.toml", Recorded("tm/ln", argv, b""))

    sentence = (
        f"cannot link nas1/tank/one-9: cannot read the configuration {tmp_path}/missing.toml: No such file or directory"
    )
    assert told == ("", error("3.4" if len(argv) == 2 else "6.10", sentence), 1)


def test_a_document_is_read_from_stdin(tmp_path: Path) -> None:
    config = configuration(tmp_path, "6.10")

    told = run(config, Recorded("datastore/mkfs", ("9",), document("mkfs").encode()))

    assert told == (
        "",
        "cannot make image 9: the action's document is XML as it is: encode it in base64, as OpenNebula does\n",
        1,
    )


def test_an_action_that_nobody_knows_is_one_sentence(tmp_path: Path) -> None:
    config = configuration(tmp_path, "6.10")

    told = run(config, Recorded("tm/fly", ("a", "b", "1", "2"), b""))

    assert told == ("", "cannot run tm/fly: onelun has no action 'tm/fly'\n", 1)
