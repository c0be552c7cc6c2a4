r"""The syntax of oned.conf, read without losing a byte: every value knows where in the text it stands.

The grammar is that of OpenNebula's template_parser.l and template_syntax.y: `NAME = value` and `NAME = [ NAME = value, … ]`,
a value being a word or a quoted string, which may go over several lines and has `\"` for a quote. A `#` outside quotes begins a
comment. Names count without regard to case.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from onelun.errors import Rejected

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*(?:\n|\Z))*")
_NAME = re.compile(r"[A-Za-z0-9_]+")
_EQUAL = re.compile(r"[ \t\r\n]*=[ \t]*")
_REST_EMPTY = re.compile(r"\r?(?:\n|\Z)")
_QUOTED = re.compile(r'"((?:[^"\\]|\\"|\\(?!"))*)"')
_WORD = re.compile(r'[^=#\s,\[\]"][^=#\s,\[\]]*')


class Value(msgspec.Struct, frozen=True):
    """A value: `text` as OpenNebula reads it; from `start` to `end` it stands in the file, without its quotes."""

    text: str
    start: int
    end: int


class Entry(msgspec.Struct, frozen=True):
    """One setting, its name in capitals. A vector has `fields`, by their names in capitals; anything else a `value`."""

    name: str
    line: int
    value: Value | None = None
    fields: Mapping[str, Value] | None = None

    def field(self, name: str) -> str:
        """The text of a field; empty when the entry has none of that name, or is no vector."""
        found = (self.fields or {}).get(name)
        return found.text if found else ""


def parse(text: str, path: str) -> list[Entry]:
    """All settings of the file `path`, in order. Raises Rejected, naming the line, for what is not oned.conf's syntax."""
    return _Reader(text, path).entries()


class _Reader:
    def __init__(self, text: str, path: str) -> None:
        self._text = text
        self._path = path
        self._at = 0

    def entries(self) -> list[Entry]:
        found: list[Entry] = []
        self._skip()
        while self._at < len(self._text):
            found.append(self._entry())
            self._skip()
        return found

    def _entry(self) -> Entry:
        line = self._line()
        name = self._take(_NAME, "the name of a setting")[0].upper()
        self._take(_EQUAL, f"a = behind {name}")
        if _REST_EMPTY.match(self._text, self._at):
            return Entry(name, line, value=Value("", self._at, self._at))
        if not self._has("["):
            return Entry(name, line, value=self._value(name))
        return Entry(name, line, fields=self._fields(name))

    def _fields(self, vector: str) -> dict[str, Value]:
        fields: dict[str, Value] = {}
        self._skip()
        if self._has("]"):
            return fields
        while True:
            name = self._take(_NAME, f"a name within {vector}")[0].upper()
            self._take(_EQUAL, f"a = behind {name}")
            # Of two fields of a name OpenNebula keeps the first.
            fields.setdefault(name, self._value(name))
            self._skip()
            if self._has("]"):
                return fields
            if not self._has(","):
                raise self._wrong(f"a comma or the closing ] of {vector}")
            self._skip()

    def _value(self, name: str) -> Value:
        if match := _QUOTED.match(self._text, self._at):
            self._at = match.end()
            return Value(match[1].replace('\\"', '"'), match.start(1), match.end(1))
        match = self._take(_WORD, f"the value of {name}")
        return Value(match[0], match.start(), match.end())

    def _take(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self._wrong(what)
        self._at = match.end()
        return match

    def _has(self, character: str) -> bool:
        if not self._text.startswith(character, self._at):
            return False
        self._at += 1
        return True

    def _skip(self) -> None:
        match = _BLANK.match(self._text, self._at)
        assert match is not None
        self._at = match.end()

    def _line(self) -> int:
        return self._text.count("\n", 0, self._at) + 1

    def _wrong(self, wanted: str) -> Rejected:
        rest = self._text[self._at : self._at + 20].split("\n")[0]
        found = repr(rest) if rest else "nothing more"
        return Rejected(f"{self._path} cannot be read: line {self._line()} should have {wanted}, and has {found}")
