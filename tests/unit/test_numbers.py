"""What is a number in what others wrote."""

import pytest

from onelun.errors import ProtocolError
from onelun.numbers import is_number, number_in


@pytest.mark.parametrize("text", ["0", "7", "007", "9" * 18])
def test_digits_are_a_number(text):
    assert is_number(text)
    assert number_in(f" {text}\n", "the size") == int(text)


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "1_0", "1.5", "1e3", "\u0663", "\u00b2", "9" * 19, "9" * 5000, "0x1", "1 2"]
)
def test_what_python_takes_for_a_number_is_not_always_one(text):
    assert not is_number(text)
    with pytest.raises(ProtocolError, match=r"the size is .* no number"):
        number_in(text, "the size")


def test_nothing_is_no_number():
    with pytest.raises(ProtocolError):
        number_in(None, "the size")
