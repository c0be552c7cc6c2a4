"""The list of all points: read from the source, so that a new step is in it without anybody's doing."""

from __future__ import annotations

import ast
import os
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

import onelun
from onelun.faults.doors import ELSEWHERE, step_of
from onelun.rpc.message import BY_REQUEST, name_of

_ROOT = os.path.dirname(onelun.__file__)


class Point(NamedTuple):
    """One step: its name, its door, and the lines of its call in the module."""

    name: str
    kind: str
    module: str
    first: int
    last: int


def points_in(module: str) -> tuple[Point, ...]:
    """The points of one module of onelun, such as `nas.catalogue`."""
    return _in_module(module, os.path.join(_ROOT, *module.split(".")) + ".py")


def points() -> list[Point]:
    """All points, sorted by name. A function with several steps of one word numbers them from the second on."""
    found = [point for module, path in _modules() for point in _in_module(module, path)]
    for verb in BY_REQUEST.values():
        request = name_of(verb.request)
        found += [Point(f"rpc.{kind}/{request}", kind, "", 0, 0) for kind in ("ask", "take")]
    found.append(Point("frontend.server/action", "action", "", 0, 0))
    found += [Point(f"driver.api/{method}", "api", "", 0, 0) for method in _methods()]
    return sorted(found)


def _modules() -> Iterator[tuple[str, str]]:
    for directory, _, files in os.walk(_ROOT):
        for file in files:
            if file.endswith(".py"):
                path = os.path.join(directory, file)
                module = os.path.relpath(path, _ROOT).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
                if not any(f"{module}.".startswith(f"{room}.") for room in ELSEWHERE):
                    yield module, path


def _tree(path: str) -> ast.Module:
    with open(path, encoding="utf-8") as file:
        return ast.parse(file.read())


# A source is read once a process: reading all of them takes a second.
@cache
def _in_module(module: str, path: str) -> tuple[Point, ...]:
    return tuple(_found(module, path))


def _found(module: str, path: str) -> Iterator[Point]:
    counted: Counter[str] = Counter()
    for where, call in _calls(_tree(path), ()):
        step = step_of(call)
        # A door's own methods are called inside it too: those are no steps of their own.
        if step is None or (module == "nas.catalogue" and step.kind == "catalogue"):
            continue
        name = f"{'.'.join((module, *where))}/{step.word}"
        counted[name] += 1
        number = f"-{counted[name]}" if counted[name] > 1 else ""
        yield Point(name + number, step.kind, module, call.lineno, call.end_lineno or call.lineno)


def _calls(node: ast.AST, where: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ast.Call]]:
    """Every call below the node, in the order of the source, with the classes and functions around it."""
    for child in ast.iter_child_nodes(node):
        inside = where
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = (*where, child.name)
        if isinstance(child, ast.Call):
            yield where, child
        yield from _calls(child, inside)


def _methods() -> list[str]:
    """What is asked of oned's API."""
    calls = [call for _, call in _calls(_tree(os.path.join(_ROOT, "driver", "api.py")), ())]
    asked = [call.args[0] for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr == "_call"]
    words = [word.value for word in asked if isinstance(word, ast.Constant)]
    # The one that is put together: `one.{kind}.info`.
    return sorted({str(word) for word in words} | {"one.image.info"})
