"""docs/volume-driver.md names modules, methods, tests, requests and keys that there are."""

import importlib
import re
from pathlib import Path

import pytest

from onelun.config import Config, Frontend, Lio, Nas
from onelun.rpc.message import VERBS, name_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "volume-driver.md").read_text()
QUOTED = re.findall(r"`([^`\n]+)`", PAGE)
HERE = {
    "Backend": "onelun.nas.backends.base",
    "Exporter": "onelun.nas.exporters.base",
    "Connector": "onelun.compute.connectors.base",
    "Startup": "onelun.nas.startup",
    "Offers": "onelun.nas.offers",
    "Volumes": "onelun.nas.volumes",
    "Attachments": "onelun.nas.attachments",
    "Growing": "onelun.nas.growing",
}


@pytest.mark.parametrize("path", sorted({text for text in QUOTED if re.fullmatch(r"[a-z_/]+\.py", text)}))
def test_a_file_is_where_the_page_says(path):
    place = ROOT if path.startswith("tests/") else ROOT / "lib" / "onelun"
    if path != "base.py":
        assert (place / path).is_file()


@pytest.mark.parametrize("name", sorted({text.partition("(")[0] for text in QUOTED if text.partition(".")[0] in HERE}))
def test_a_method_is_what_the_page_calls_it(name):
    owner, _, method = name.partition(".")

    assert hasattr(getattr(importlib.import_module(HERE[owner]), owner), method)


def test_requests_and_keys_are_those_of_the_protocol_and_the_configuration():
    requests = {name_of(verb.request) for verb in VERBS}
    named = set(re.findall(r"`([a-z]+_(?:zvol|capacity|connection))`", PAGE))

    assert named
    assert named <= requests
    for text in QUOTED:
        section, _, key = text.partition(".")
        if section in ("nas", "frontend") and key.isidentifier():
            assert key in (*Nas.__struct_fields__, *Frontend.__struct_fields__)
    assert {"address", "port"} <= set(Lio.__struct_fields__)
    assert {"nas", "frontend", "limits"} <= set(Config.__struct_fields__)


def test_the_dictionary_has_the_keys_that_the_page_lists():
    source = (ROOT / "lib/onelun/nas/connections.py").read_text()
    sent = set(re.findall(r'^ {12}"(\w+)": ', source, re.MULTILINE))
    table = PAGE.partition("| key of `data` |")[2].partition("\n\n")[0]

    assert sent
    assert set(re.findall(r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines()[2:]))) == sent
