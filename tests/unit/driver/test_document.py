"""OpenNebula's documents: what is read of recorded ones, and that anything else is an error and nothing more."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.recorded import RECORDINGS, document, show

from onelun.driver.document import ActionData, parse_vm
from onelun.errors import Rejected


def encoded(text: str) -> bytes:
    return base64.b64encode(text.encode())


def test_a_recorded_image_is_read() -> None:
    image = ActionData(encoded(document("clone"))).image()

    assert (image.id, image.regtime, image.path, image.format, image.fs) == (
        13,
        1795245258,
        "nas1/tank/one-3",
        "raw",
        "",
    )
    assert (image.source, image.size_mb, image.old, image.sums) == ("", 64, False, {})


def test_an_image_of_5_12_has_its_filesystem_in_another_element() -> None:
    text = document("mkfs").replace("<FORMAT><![CDATA[raw]]></FORMAT><FS>", "<FSTYPE>").replace("</FS>", "</FSTYPE>")

    image = ActionData(encoded(text)).image()

    assert (image.old, image.fs, image.format) == (True, "", "")


def test_checksums_are_read_in_small_letters() -> None:
    text = document("cp").replace("<TEMPLATE><DESCRIPTION>", "<TEMPLATE><MD5>ABC</MD5><SHA256> </SHA256><DESCRIPTION>")

    assert ActionData(encoded(text)).image().sums == {"md5": "abc"}


def test_a_recorded_datastore_is_read() -> None:
    datastore = ActionData(encoded(document("stat"))).datastore()

    assert (datastore.id, datastore.name, datastore.pools) == (102, "img_onelun", "nas1/tank nas2/tank")
    assert (datastore.safe_dirs, datastore.restricted_dirs) == (("/var/tmp/images", "/tmp"), ())


def test_the_path_alone_is_read_of_what_stat_gets() -> None:
    assert ActionData(encoded(document("stat"))).path() == "/var/tmp/images/base.raw"


@pytest.mark.parametrize("recording", sorted(path.stem for path in (RECORDINGS / "show").glob("vm-*.xml")))
def test_every_recorded_vm_is_read(recording: str) -> None:
    vm = parse_vm(show(recording))

    assert recording.startswith(f"vm-{vm.id}.lcm-{vm.lcm_state}")


def test_a_vm_s_disks_are_told_apart() -> None:
    vm = parse_vm(show("vm-0.lcm-12"))

    told = {number: (disk.source, disk.clone, disk.readonly) for number, disk in vm.disks.items()}
    assert told == {
        0: ("nas1/tank/one-3", True, False),
        1: ("nas1/tank/one-4", False, False),
        2: ("", None, False),
        3: ("", None, False),
        4: ("nas1/tank/one-8", False, True),
        5: ("nas1/tank/one-3", True, False),
        7: ("", None, False),
    }
    assert (vm.disks[0].size_mb, vm.disks[0].original_size_mb, vm.hostname) == (96, 64, "host01")


@given(st.binary())
def test_any_bytes_are_a_document_or_rejected(body: bytes) -> None:
    with pytest.raises(Rejected):
        ActionData(body)
    with pytest.raises(Rejected):
        ActionData(base64.b64encode(body))


@given(st.data())
def test_a_document_with_any_element_replaced_is_read_or_rejected(data: st.DataObject) -> None:
    element = data.draw(st.sampled_from(["ID", "SIZE", "REGTIME", "PATH", "SOURCE", "FORMAT", "FS"]))
    content = data.draw(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"])))
    escaped = content.replace("&", "&amp;").replace("<", "&lt;")

    told = ""
    try:
        ActionData(encoded(document("mkfs", **{element: escaped}))).image()
    except Rejected as error:
        told = error.sentence

    assert len(told) < 200


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_doctype_is_refused_in_any_encoding(codec: str) -> None:
    text = '<?xml version="1.0" encoding="{0}"?><!-- x --><!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    body = (text.format(codec.removesuffix("-sig")) + "<DS_DRIVER_ACTION_DATA>&e;</DS_DRIVER_ACTION_DATA>").encode(
        codec
    )

    with pytest.raises(Rejected):
        ActionData(base64.b64encode(body))


_LAUGHS = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))


@pytest.mark.parametrize(
    "text",
    [
        f'<!DOCTYPE DS_DRIVER_ACTION_DATA [<!ENTITY e0 "ha">{_LAUGHS}]><DS_DRIVER_ACTION_DATA>&e9;</DS_DRIVER_ACTION_DATA>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd"><DS_DRIVER_ACTION_DATA/>',
        f"<DS_DRIVER_ACTION_DATA>{'<a>' * 100_000}{'</a>' * 100_000}</DS_DRIVER_ACTION_DATA>",
        f"<DS_DRIVER_ACTION_DATA>{'x' * (11 << 20)}</DS_DRIVER_ACTION_DATA>",
        f'<DS_DRIVER_ACTION_DATA a="{"x" * (11 << 20)}"/>',
    ],
    ids=[
        "entities that grow",
        "a DTD elsewhere",
        "nested without end",
        "a text without end",
        "an attribute without end",
    ],
)
def test_an_xml_bomb_is_refused_before_it_takes_memory(text: str) -> None:
    with pytest.raises(Rejected) as raised:
        ActionData(encoded(text))

    assert len(raised.value.sentence) < 200


def test_the_word_doctype_in_a_description_is_no_doctype() -> None:
    text = document("cp").replace("a <b> & 'c'", "<!DOCTYPE html>")

    assert ActionData(encoded(text)).image().id == 3


def test_the_recordings_are_those_of_the_actions_that_onelun_has() -> None:
    checkout = Path(__file__).parents[3]
    actions = [path.name for path in (checkout / "datastore/onelun").iterdir() if path.suffix == "" and path.is_file()]

    # oned itself never calls export: one_market.rb does.
    recorded = {name for name in actions if (RECORDINGS / f"datastore.{name}.json").exists()}
    assert set(actions) - recorded == {"export"}
