"""A multipathd that takes VMs' disks for itself is named, and one that leaves them alone is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.sysfs import build, put

from onelun import command
from onelun.compute.connectors.iscsi.multipath import takes_ours, troubles
from onelun.compute.connectors.iscsi.sysfs import Sysfs

# What multipath -t of 0.9.4 prints, shortened.
CONFIGURATION = """defaults {{
	verbosity 2
	find_multipaths "{finding}"
	find_multipaths_timeout -10
}}
blacklist {{
	devnode "!^(sd[a-z]|dasd[a-z]|nvme[0-9])"
{rule}
	device {{
		vendor "IBM"
		product "S/390"
	}}
}}
blacklist_exceptions {{
	property "(SCSI_IDENT_|ID_WWN)"
{exception}
}}
devices {{
	device {{
		vendor "(LIO-ORG|SUSE)"
		product ".*"
		no_path_retry 12
	}}
}}
overrides {{
}}
"""


def printed(finding: str, rule: str = "", exception: str = "") -> str:
    return CONFIGURATION.format(finding=finding, rule=rule, exception=exception)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return build(tmp_path / "sys")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    put(tmp_path / "proc/1/comm", "systemd")
    (tmp_path / "proc/2").mkdir()
    return tmp_path / "proc"


@pytest.mark.parametrize("finding", ["greedy", "off", "no"])
def test_one_that_takes_what_has_one_path_takes_ours(finding: str) -> None:
    assert takes_ours(printed(finding))


@pytest.mark.parametrize("finding", ["strict", "on", "yes", "smart"])
def test_one_that_wants_two_paths_or_to_be_told_leaves_ours_alone(finding: str) -> None:
    assert not takes_ours(printed(finding))


@pytest.mark.parametrize(
    "rule",
    [
        'device {\n vendor "^(LIO-ORG|IET)$"\n}',
        'protocol "scsi:iscsi"',
        'wwid ".*"',
        'devnode "^sd[a-z]"',
        'devnode "!^nvme"',
    ],
)
def test_a_blacklist_that_has_ours_leaves_them_alone(rule: str) -> None:
    assert not takes_ours(printed("greedy", rule))


@pytest.mark.parametrize(
    ("rule", "exception"),
    [
        ('wwid "^3600508"', ""),
        ('protocol "scsi:fcp"', ""),
        ('protocol "scsi:.*"', 'protocol "scsi:iscsi"'),
        ('device {\n vendor "NETAPP"\n}', ""),
        ('devnode "^(sd["', ""),
    ],
)
def test_a_blacklist_of_others_does_not_help(rule: str, exception: str) -> None:
    assert takes_ours(printed("greedy", rule, exception))


async def test_multipathd_is_named_only_while_it_runs(tree: Path, proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(*argv: str, **_: object) -> command.Result:
        assert argv == ("multipath", "-t")
        return command.Result(0, printed("off"), "")

    monkeypatch.setattr(command, "run", run)

    assert await troubles(Sysfs(str(tree)), str(proc)) == []

    put(proc / "3/comm", "multipathd")

    [told] = await troubles(Sysfs(str(tree)), str(proc))
    assert "`find_multipaths strict`" in told
    assert "/etc/multipath.conf" in told


async def test_a_disk_that_multipath_has_taken_is_named_with_what_frees_it(tree: Path, proc: Path) -> None:
    sysfs = Sysfs(str(tree))
    session = sysfs.sessions()[0]
    [disk] = [disk for disk in sysfs.disks(session) if disk.name]
    holders = Path(disk.directory) / "block" / disk.name / "holders"
    put(holders / "dm-1/dm/uuid", "LVM-abc")
    put(holders / "dm-3/dm/uuid", "mpath-36001405aaaa")
    put(holders / "dm-3/dm/name", "mpatha")

    [told] = await troubles(sysfs, str(proc))

    assert f"taken {disk.node} of {session.iqn}" in told
    assert f"multipath -f mpatha, then multipath -w {disk.node}" in told
