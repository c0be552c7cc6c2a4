"""The list of points is read from the source."""

from __future__ import annotations

import ast
from collections import Counter

import pytest

from onelun.faults.doors import step_of
from onelun.faults.points import points


def test_each_point_has_a_name_of_its_own():
    counted = Counter(point.name for point in points())

    assert [name for name, number in counted.items() if number > 1] == []


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("os.rename(a, b)", "rename"),
        ("await command.run('losetup', device, timeout_s=5)", "losetup"),
        ("await command.run(*argv, timeout_s=5)", "run"),
        ("self._catalogue.put(row)", "put"),
        ("await self._tgtd.request(Mode.TARGET, Op.NEW, text, tid=tid)", "tgt-target-new"),
        ("rename_new(old, new, dir_fd=root)", "rename_new"),
        ("Path(self._path(iqn)).unlink(missing_ok=True)", "unlink"),
    ],
)
def test_a_call_that_goes_outwards_is_a_step(source, word):
    found = [step_of(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]

    assert [step.word for step in found if step] == [word]


@pytest.mark.parametrize("source", ["os.stat(path)", "await self._host.unlink(target, link)", "rows.put(row)"])
def test_what_only_looks_or_is_our_own_is_none(source):
    found = [step_of(node) for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]

    assert [step for step in found if step] == []


def test_a_new_step_is_listed_without_anybodys_doing():
    names = {point.name for point in points()}

    assert "nas.backends.file.tree.Tree.remove/rename" in names
    assert "rpc.take/map_zvol" in names
    assert "driver.api/one.vm.info" in names
