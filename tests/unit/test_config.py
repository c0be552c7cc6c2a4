"""The configuration."""

import pytest
from click.testing import CliRunner

from onelun.cli.main import main
from onelun.config import LvmPool, ZfsPool, load
from onelun.errors import Rejected

FRONTEND = '[frontend]\ncloud = "4f2c1f0e-7a55-4c58-9b5c-0c7f3a6f1a01"\n'
NAS = '[nas]\nname = "nas1"\n[nas.pools.tank]\nbackend = "file"\npath = "/srv/tank"\n[nas.lio]\naddress = "192.0.2.1"\n'
ZFS = NAS.replace('"file"', '"zfs"').replace('path = "/srv/tank"', 'dataset = "tank/onelun"')
LVM = NAS.replace('"file"', '"lvm"').replace('path = "/srv/tank"', 'vg = "vg0"\nthin_pool = "thin"')


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "onelun.toml"
        path.write_text(text)
        return {"ONELUN_CONFIG": str(path)}

    return write


def test_every_value_says_where_it_came_from(written):
    environ = {**written(FRONTEND + "[limits]\naccept_s = 3\n"), "ONELUN_AMQP_URL": "amqp://u:p@127.0.0.1/"}

    loaded = load(environ)

    assert loaded.config.limits.accept_s == 3
    assert loaded.origin["limits.accept_s"] == environ["ONELUN_CONFIG"]
    assert loaded.origin["limits.finish_s"] == "default"
    assert loaded.origin["broker.url"] == "ONELUN_AMQP_URL"
    assert loaded.config.broker.url == "amqp://u:p@127.0.0.1/"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[frontend\n", "is no TOML"),
        (FRONTEND + "colour = 1\n", "colour"),
        ("[nonsense]\n", "nonsense"),
        ("[frontend]\n", "cloud"),
        ('[frontend]\ncloud = "x"\n', "frontend.cloud"),
        (FRONTEND + "nas = 3\n", "nas"),
        (FRONTEND + 'initiator = "node1"\n', "initiator"),
        (NAS.replace("nas1", "NAS 1"), "nas.name"),
        (NAS.replace("tank]", "'../x']"), "nas.pools"),
        (NAS.replace('name = "nas1"', 'name = "nas1"\ndefault_pool = "lake"'), "default_pool"),
        ('[nas]\nname = "nas1"\n[nas.pools]\n', "names no pool"),
        (NAS.replace("[nas.lio]", "[nas.tgt]"), r"no section \[nas\.lio\]"),
        (NAS.replace('"file"', '"tape"'), "tape"),
        (NAS.replace('"file"', '"zfs"'), "path"),
        (ZFS.replace("dataset", "pool"), "pool"),
        (ZFS.replace("tank/onelun", "tank/../x"), "nas.pools.tank.dataset"),
        (ZFS.replace("tank/onelun", "-o"), "nas.pools.tank.dataset"),
        (LVM.replace('"vg0"', '"-vg0"'), "nas.pools.tank.vg"),
        (LVM.replace('"thin"', '"a/b"'), "nas.pools.tank.thin_pool"),
        ('[compute]\nname = "node1"\nconnector = "fc"\ninitiator = "iqn.2026-11.io.onelun.host:n"\n', "connector"),
        ('[compute]\nname = "node1"\n', "initiator"),
        ('[limits]\naccept_s = "soon"\n', "accept_s"),
        ("[limits]\naccept_s = -1\n", "limits.accept_s"),
        ("[limits]\nhigh_water = 7\n", "limits.high_water"),
        ("[limits]\nper_host = 0\n", "limits.per_host"),
        ('[broker]\nurl = "http://x"\n', "broker.url"),
        (FRONTEND + 'broker_url = "http://x"\n', r"frontend\.broker_url must begin with amqp://"),
        ("[broker]\nheartbeat_s = 0\n", "heartbeat_s"),
        (NAS.replace("/srv/tank", "tank"), "nas.pools.tank.path"),
        ('[compute]\nname = "node1"\ninitiator = "node1"\n', "compute.initiator"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused_naming_the_key(written, text, what):
    with pytest.raises(Rejected, match=what):
        load(written(text))


def test_each_kind_of_pool_has_its_own_settings(written):
    zfs = load(written(ZFS + "[nas.pools.tank.properties]\nvolblocksize = '16K'\n")).config.nas
    lvm = load(written(LVM)).config.nas

    assert zfs.pools == {"tank": ZfsPool(dataset="tank/onelun", properties={"volblocksize": "16K"})}
    assert lvm.pools == {"tank": LvmPool(vg="vg0", thin_pool="thin")}


def test_a_second_role_of_a_machine_is_a_user_of_the_broker_of_its_own(written):
    url = '[broker]\nurl = "amqps://nas.nas1:a@192.0.2.1/"\nheartbeat_s = 7\n'
    text = url + FRONTEND + 'broker_url = "amqps://frontend:b@192.0.2.1/"\n' + NAS

    config = load(written(text)).config
    told = load({**written(text), "ONELUN_AMQP_URL": "amqp://other:c@127.0.0.1/"}).config

    assert config.broker_of(config.nas) == config.broker
    assert config.broker_of(config.frontend).url == "amqps://frontend:b@192.0.2.1/"
    assert config.broker_of(config.frontend).heartbeat_s == 7
    assert told.broker_of(told.frontend).url == told.broker_of(told.nas).url == "amqp://other:c@127.0.0.1/"


def test_a_missing_file_is_named():
    with pytest.raises(Rejected, match=r"/nowhere/onelun\.toml"):
        load({"ONELUN_CONFIG": "/nowhere/onelun.toml"})


def test_config_show_prints_what_is_in_force_and_hides_passwords(written):
    environ = written(FRONTEND + '[broker]\nurl = "amqp://frontend:s3cret@127.0.0.1:5672/%2F"\n')

    shown = CliRunner().invoke(
        main, ["config", "show"], env={**environ, "ONELUN_AMQP_URL": None, "ONELUN_SOCKET": None}
    )

    assert shown.exit_code == 0
    assert "s3cret" not in shown.output
    assert f"broker.url = 'amqp://frontend:***@127.0.0.1:5672/%2F'  # {environ['ONELUN_CONFIG']}" in shown.output
    assert "limits.accept_s = 5.0  # default" in shown.output


def test_config_show_says_in_one_line_what_is_wrong(written):
    shown = CliRunner().invoke(main, ["config", "show"], env=written(FRONTEND + "colour = 1\n"))

    assert shown.exit_code == 1
    assert shown.output.startswith("Error: the configuration ")
    assert shown.output.count("\n") == 1


def test_a_role_without_its_section_says_which_one_is_missing(written):
    shown = CliRunner().invoke(main, ["nas"], env=written(FRONTEND))

    assert shown.exit_code == 1
    assert "no section [nas]" in shown.output


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (FRONTEND + "[limits]\naccept_s = nan\n", "limits.accept_s cannot be nan"),
        (FRONTEND + "[limits]\ncopy_s = inf\n", "limits.copy_s cannot be inf"),
        (FRONTEND + "[limits]\nfinish_s = 1e300\n", "limits.finish_s cannot be"),
        (FRONTEND + "[limits]\nper_host = " + "9" * 5000 + "\n", "is no TOML"),
        ("a = " + "[" * 20000, "is no TOML"),
        (FRONTEND + 'socket = "/run/\\u0000"\n', "frontend.socket is '/run/.x00', which has characters"),
        (FRONTEND + "max_image_gib = 0\n", "frontend.max_image_gib must be"),
        (FRONTEND + "[broker]\nheartbeat_s = 100000\n", "broker.heartbeat_s must be 1 to 65535"),
        (FRONTEND + '[broker]\nexchange = ""\n', "broker.exchange must have"),
        (NAS + "port = 65536\n", "nas.lio.port is 65536"),
        (NAS.replace("192.0.2.1", "192.0.2.1 "), "nas.lio.address is '192.0.2.1 '"),
    ],
)
def test_values_that_would_hurt_later_are_refused_at_once(written, text, what):
    with pytest.raises(Rejected, match=what):
        load(written(text))


def test_a_url_in_the_environment_needs_no_table_in_the_file(written):
    with pytest.raises(Rejected, match="is wrong"):
        load({**written("broker = 5\n"), "ONELUN_AMQP_URL": "amqp://u:p@127.0.0.1/"})


def test_a_name_with_a_nul_is_no_configuration():
    with pytest.raises(Rejected, match="is no TOML"):
        load({"ONELUN_CONFIG": "/etc/\0"})


@pytest.mark.parametrize(
    "url", ["amqp://u:secret@h/", "amqp:///u:secret@h/", "amqp://:secret@h", "amqp://u:se/cret@h/?a=@"]
)
def test_a_password_is_hidden_however_the_url_is_written(written, url):
    result = CliRunner().invoke(main, ["config", "show"], env=written(f'{FRONTEND}[broker]\nurl = "{url}"\n'))

    assert result.exit_code == 0
    assert "cret" not in result.output
