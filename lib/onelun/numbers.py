"""Numbers in what others wrote: tools, kernels, files. What Python takes for a number is more than that.

`int` also takes digits of every script, blanks, underscores and signs, and raises ValueError for more than 4300 digits; SQLite
and JSON's usual readers keep 64 bits.
"""

from __future__ import annotations

from onelun.errors import ProtocolError

# The largest signed number of 64 bits has 19, of which not every one fits.
_MOST_DIGITS = 18


def is_number(text: str) -> bool:
    """Whether it is a whole number from 0 to 10^18 - 1 in ASCII's digits, and nothing else."""
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def number_in(text: str | None, what: str) -> int:
    """The whole number, from 0 to 10^18 - 1, with blanks around it perhaps. Raises ProtocolError, calling it `what`."""
    found = (text or "").strip()
    if not is_number(found):
        raise ProtocolError(f"{what} is {found[:40]!r}, which is no number")
    return int(found)
