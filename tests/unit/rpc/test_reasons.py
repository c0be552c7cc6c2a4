"""What a reply says of an error that nobody foresaw."""

import errno
import sqlite3

import pytest

from onelun.rpc.jobs import reason_of


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            sqlite3.OperationalError("database or disk is full"),
            "state directory cannot be written (database or disk is full)",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "/var/lib/onelun/x"), "/var/lib/onelun/x cannot be written"),
        (OSError(errno.EIO, "Input/output error"), "a file of its own cannot be written (Input/output error)"),
    ],
)
def test_a_disk_that_cannot_be_written_is_named(error, words):
    assert words in reason_of(error)


@pytest.mark.parametrize("error", [KeyError("x"), OSError(errno.ENOENT, "No such file or directory", "/x")])
def test_what_only_the_log_explains_has_no_reason(error):
    assert reason_of(error) == ""
