"""What frames an action: arguments in, forms of errors out, for every release and for any text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelun.driver.frame import Form, error_text, form_of, log_text, parse_version, read_arguments
from onelun.errors import Rejected

DOCUMENT = ("PD94bWw=", "9")
FORMS = st.sampled_from(Form)


@pytest.mark.parametrize(
    ("release", "form"),
    [
        ("3.4", Form.DELIMITED),
        ("4.14.2", Form.DELIMITED),
        ("5.12", Form.DELIMITED),
        ("6.0.0.1", Form.DELIMITED),
        ("6.2", Form.PLAIN),
        ("6.6", Form.PLAIN),
        ("6.10.0-1", Form.PLAIN),
        ("7.0", Form.LOGGED),
        ("7.5.80", Form.LOGGED),
        ("10.0", Form.LOGGED),
    ],
)
def test_the_release_decides_the_form(release: str, form: Form) -> None:
    assert form_of("tm/ln", ("a", "b"), parse_version(release)) is form
    assert form_of("tm/ln", ("a", "b", "1", "2"), parse_version(release)) is form


@pytest.mark.parametrize(
    ("name", "argv", "form"),
    [
        ("datastore/cp", DOCUMENT, Form.DELIMITED),
        ("datastore/cp", ("9",), Form.PLAIN),
        ("tm/ln", ("a", "b"), Form.DELIMITED),
        ("tm/clone", ("a", "b", "100"), Form.DELIMITED),
        ("tm/ln", ("a", "b", "42", "100"), Form.PLAIN),
        ("tm/delete", ("a", "42", "100"), Form.PLAIN),
        ("tm/delete", (), Form.DELIMITED),
        ("tm/premigrate", ("a", "b", "c", "42", "100"), Form.PLAIN),
        ("tm/premigrate", ("a", "b", "c", "42", "100", "ssh"), Form.PLAIN),
        ("tm/monitor", DOCUMENT, Form.DELIMITED),
        ("tm/monitor", ("103",), Form.PLAIN),
    ],
)
def test_an_unknown_release_is_judged_by_its_arguments(name: str, argv: tuple[str, ...], form: Form) -> None:
    assert form_of(name, argv, None) is form


@pytest.mark.parametrize("text", ["", "seven", "7.x.y z", "7" * 5, "-1", "6.0\n7"])
def test_what_is_no_release_is_rejected(text: str) -> None:
    with pytest.raises(Rejected, match=r"frontend\.opennebula_version"):
        parse_version(text)


def test_the_document_is_in_argv_or_on_stdin() -> None:
    assert read_arguments("datastore/cp", DOCUMENT, None).document == b"PD94bWw="
    assert read_arguments("datastore/cp", ("9",), b"PD94bWw=").document == b"PD94bWw="
    assert read_arguments("datastore/cp", ("9",), None).document == b""


@pytest.mark.parametrize("chained", [(), ("ssh",), ("local", "7")])
def test_a_migration_has_its_ids_before_the_driver_that_calls_it(chained: tuple[str, ...]) -> None:
    read = read_arguments("tm/premigrate", ("a", "b", "c", "42", "100", *chained), b"PD94bWw=")

    assert (read.rest, read.vm_id, read.datastore_id) == (("a", "b", "c"), 42, 100)
    assert (read.document, read.chained) == (b"PD94bWw=", bool(chained))


@given(st.lists(st.text(), max_size=4), st.integers(0, 10**9), st.integers(0, 10**9))
def test_ids_are_the_last_two_numbers(own: list[str], vm: int, datastore: int) -> None:
    argv = ("first", *own, str(vm), str(datastore))

    read = read_arguments("tm/mv", argv, None)

    assert (read.rest, read.vm_id, read.datastore_id, read.modern) == (("first", *own), vm, datastore, True)


@given(st.text(alphabet=st.characters(codec="utf-8")), FORMS)
def test_any_sentence_becomes_one_line_that_is_no_line_of_a_log(sentence: str, form: Form) -> None:
    text = error_text(form, sentence)

    lines = text.split("\n")
    assert lines.pop() == ""
    if form is Form.DELIMITED:
        assert (lines.pop(0), lines.pop()) == ("ERROR MESSAGE --8<------", "ERROR MESSAGE ------>8--")
    assert len(lines) == 1
    assert lines[0].strip()
    # DriverExecHelper.rb of 7.0: such a line would be a log, and its number a VM.
    assert not re.match(r"(ERROR|INFO|WARN|DEBUG):\s+(\d+)?\s*(.*)$", lines[0])
    # A digit of Ruby's and oned's is one of ASCII's; other scripts' are letters to them.
    assert not re.match("[0-9]", lines[0])


@given(st.text(alphabet=st.characters(codec="utf-8")), st.none() | st.integers(0, 10**6), FORMS)
def test_a_log_line_goes_to_the_log_of_its_vm_and_of_no_other(text: str, vm: int | None, form: Form) -> None:
    line = log_text(form, "INFO", "tm/clone", vm, text)

    if form is not Form.LOGGED:
        assert line == ""
        return
    assert line.count("\n") == 1
    match = re.match(r"^(ERROR|INFO|WARN|DEBUG):\s+(\d+)?\s*(.*)$", line)
    assert match is not None
    assert match[2] == (None if vm is None else str(vm))
    assert match[3].startswith("clone: ")
