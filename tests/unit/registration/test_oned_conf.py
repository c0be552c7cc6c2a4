"""Registration in oned.conf: what is added, what a repeat does, and that every other byte stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.oned_conf import ONED_CONF, ONED_CONF_3_4, RELEASES

from onelun.errors import Rejected
from onelun.registration.oned_conf import BEGIN, END, findings, registered, unregistered
from onelun.registration.syntax import parse

NEWEST = RELEASES[-1]


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_gets_its_lists_and_its_settings(release: tuple[int, int]) -> None:
    text = registered(ONED_CONF[release], release)

    entries = parse(text, "oned.conf")
    arguments = {entry.name: entry.field("ARGUMENTS") for entry in entries if entry.name in ("TM_MAD", "DATASTORE_MAD")}
    conf = next(e for e in entries if e.name == "TM_MAD_CONF" and e.field("NAME") == "onelun")
    assert arguments["TM_MAD"].endswith(",onelun")
    assert ",onelun -s " in arguments["DATASTORE_MAD"]
    assert arguments["DATASTORE_MAD"].endswith(",onelun")
    assert conf.field("TM_MAD_SYSTEM") == "ssh,shared"
    assert (conf.field("DS_LIVE_MIGRATE") == "NO") == (release >= (7, 2))
    assert findings(text, release) == []


@pytest.mark.parametrize("release", RELEASES)
def test_a_repeat_changes_nothing(release: tuple[int, int]) -> None:
    text = registered(ONED_CONF[release], release)

    assert registered(text, release) == text


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("ending", ["\n", "", "\n\n\n", "\n# the last line"])
def test_taking_it_out_gives_the_file_back_byte_for_byte(release: tuple[int, int], ending: str) -> None:
    before = ONED_CONF[release].rstrip("\n") + ending

    assert unregistered(registered(before, release)) == before


def test_the_line_ends_of_another_system_stay() -> None:
    before = ONED_CONF[NEWEST].replace("\n", "\r\n")

    after = registered(before, NEWEST)

    assert findings(after, NEWEST) == []
    assert unregistered(after) == before


def test_a_file_without_onelun_is_left_when_it_is_taken_out() -> None:
    assert unregistered(ONED_CONF[NEWEST]) == ONED_CONF[NEWEST]


def test_lines_behind_the_block_stay_where_they_are_when_opennebula_is_upgraded() -> None:
    text = registered(ONED_CONF[7, 0], (7, 0)) + 'LATER = "yes"\n'

    upgraded = registered(text, (7, 4))

    assert "DS_LIVE_MIGRATE" in upgraded
    assert upgraded.endswith(f'{END}\nLATER = "yes"\n')
    assert unregistered(upgraded) == ONED_CONF[7, 0] + 'LATER = "yes"\n'


def test_the_release_3_4_gets_its_lists_alone() -> None:
    text = registered(ONED_CONF_3_4, (3, 4))

    assert text == ONED_CONF_3_4.replace("vmware,iscsi", "vmware,iscsi,onelun")
    assert findings(text, (3, 4)) == []
    assert unregistered(text) == ONED_CONF_3_4


def test_settings_that_an_operator_wrote_are_left() -> None:
    own = 'TM_MAD_CONF = [ NAME = "onelun", CLONE_TARGET = "self" ]\n'

    text = registered(ONED_CONF[7, 4] + own, (7, 4))

    assert text.count("TM_MAD_CONF = [") == ONED_CONF[7, 4].count("TM_MAD_CONF = [") + 1
    line = ONED_CONF[7, 4].count("\n") + 1
    assert f'TM_MAD_CONF of onelun (line {line}) lacks LN_TARGET = "NONE": add it' in findings(text, (7, 4))
    assert unregistered(text) == ONED_CONF[7, 4] + own


def test_disk_type_is_inherited_even_where_somebody_took_that_away() -> None:
    before = ONED_CONF[7, 0].replace('INHERIT_DATASTORE_ATTR  = "DISK_TYPE"\n', "")

    text = registered(before, (7, 0))

    assert 'INHERIT_DATASTORE_ATTR = "DISK_TYPE"\n' in text
    assert unregistered(text) == before


def test_what_disks_need_of_how_their_image_is_kept_is_inherited_from_image_and_datastore() -> None:
    text = registered(ONED_CONF[7, 0], (7, 0))

    for name in ("COMPRESSION", "PROVISIONING", "WIPE"):
        for setting in ("INHERIT_IMAGE_ATTR", "INHERIT_DATASTORE_ATTR"):
            line = f'{setting} = "ONELUN_{name}"\n'
            assert text.count(line) == 1
            assert findings(text.replace(line, ""), (7, 0)) == [
                f"{setting} does not name ONELUN_{name}, which disks need: {RUN}"
            ]
    # A clone has the blocks of its image: asking a disk for others would be an error.
    assert "ONELUN_VOLBLOCKSIZE" not in text


RUN = "`onelun register --apply`"


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("shared,purefa,onelun", "shared,purefa", f"TM_MAD does not list onelun behind -d: {RUN}"),
        ("interactive,onelun", "interactive", f"DATASTORE_MAD does not list onelun behind -d: {RUN}"),
        ('purefa,onelun"\n]\n\nHM', 'purefa"\n]\n\nHM', f"DATASTORE_MAD does not list onelun behind -s: {RUN}"),
        ('LN_TARGET_SSH = "NONE"', 'LN_TARGET_SSH = "SYSTEM"', 'has LN_TARGET_SSH = "SYSTEM": make it "NONE"'),
        ('    DISK_TYPE_SHARED = "BLOCK"', '    X = "Y"', 'lacks DISK_TYPE_SHARED = "BLOCK": add it'),
        ('_POOLS,DISK_TYPE"', '_POOLS"', 'has REQUIRED_ATTRS = "ONELUN_POOLS": make it "ONELUN_POOLS,DISK_TYPE"'),
        (" -s shared", " -s fs -s shared", "has -s twice, and only the last counts: leave one"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, sentence: str) -> None:
    text = registered(ONED_CONF[NEWEST], NEWEST)
    assert old in text

    found = findings(text.replace(old, new, 1), NEWEST)

    assert any(sentence in each for each in found), found


def test_a_list_behind_the_long_option_is_found() -> None:
    before = ONED_CONF[NEWEST].replace("-t 15 -d shared", "-t 15 --tm-types=shared")

    assert "--tm-types=shared,purefa,onelun" in registered(before, NEWEST)


def test_without_d_every_driver_may_be_used() -> None:
    before = ONED_CONF[NEWEST].replace("-t 15 -d shared,purefa", "-t 15")

    text = registered(before, NEWEST)

    assert findings(text, NEWEST) == []
    assert unregistered(text) == before


def test_a_name_that_only_begins_alike_is_another_driver() -> None:
    before = ONED_CONF[NEWEST].replace("-d shared,purefa", "-d onelun-test,shared,myonelun")

    text = registered(before, NEWEST)

    assert "-d onelun-test,shared,myonelun,onelun" in text
    assert unregistered(text) == before


def _line(text: str) -> int:
    return ONED_CONF[NEWEST].split(text)[0].count("\n") + 1


_TM, _DS, _HM = _line("TM_MAD = [\n"), _line("DATASTORE_MAD = [\n"), _line("HM_MAD = [")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"one_tm",', '"one_tm', f"line {_TM + 2} should have a comma or the closing ] of TM_MAD"),
        ('"one_tm",', '"one_tm"', f"line {_TM + 2} should have a comma or the closing ] of TM_MAD, and has 'ARG"),
        ("\nPORT = 2633", "\nPORT", f"line {_line('PORT = 2633')} should have a = behind PORT, and has nothing more"),
        ("\nPORT = 2633", "\n%", f"line {_line('PORT = 2633')} should have the name of a setting, and has '%'"),
        ("\nPORT = 2633", '\nPORT = "2633', "should have"),
        ("\nTM_MAD = [", "\nXX_MAD = [", "oned.conf has no TM_MAD"),
        ("HM_MAD = [", "TM_MAD = [", f"oned.conf has TM_MAD more than once (lines {_TM}, {_HM}): leave one"),
        ("-d shared,purefa", "-d", f"the list behind -d of TM_MAD (line {_TM}) is ''"),
        ("-d shared,purefa", "-d shared, purefa", f"the list behind -d of TM_MAD (line {_TM}) is 'shared,'"),
        (" -s shared,purefa", "", "DATASTORE_MAD has no -s"),
        ("    ARGUMENTS  =", "    ARGUMENT  =", f"DATASTORE_MAD in line {_DS} has no ARGUMENTS"),
        ("-t 15 -d shared", '-t \\"15\\" -d shared', "have quotes in them"),
        ("\nPORT = 2633", f"\nPORT = 2633\n{BEGIN}", "the marks of onelun's block do not belong together"),
    ],
)
def test_a_file_that_cannot_be_changed_safely_is_refused(old: str, new: str, sentence: str) -> None:
    assert old in ONED_CONF[NEWEST]
    broken = ONED_CONF[NEWEST].replace(old, new, 1)

    with pytest.raises(Rejected) as raised:
        registered(broken, NEWEST)

    assert sentence in raised.value.sentence


_TEXT = st.text(st.characters(codec="utf-8", exclude_characters='\r\n"\\'), max_size=20)
_LINE = st.one_of(
    st.just(""),
    _TEXT.map("# {}".format),
    st.builds('{} = "{}"'.format, st.sampled_from(["A", "b_2", "TM_MAD_CONF_"]), _TEXT),
    st.builds('V = [ X = "{}", # {}\n  Y = 3 ]'.format, _TEXT, _TEXT),
)


@given(st.lists(_LINE, max_size=6), st.lists(_LINE, max_size=6), st.sampled_from(["", "\n"]), st.sampled_from(RELEASES))
def test_whatever_stands_around_it_stays(
    above: list[str], below: list[str], end: str, release: tuple[int, int]
) -> None:
    before = "\n".join([*above, ONED_CONF[release], *below]) + end

    after = registered(before, release)

    assert findings(after, release) == []
    assert registered(after, release) == after
    assert unregistered(after) == before
