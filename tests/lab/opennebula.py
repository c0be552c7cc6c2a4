"""OpenNebula on a guest, as far as installing onelun beside it takes: the files of its packages, and a oned that can be asked.

opennebula.py install NAME    the user, oned.conf, vmm_execrc, remotes, and a session, as OpenNebula's packages leave them
opennebula.py serve HOST...   oned: with these hosts, VM 0 with a clone of image 3 on the first, and a datastore with what
                              TM_MAD_CONF of oned.conf gives a new one
"""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
import threading
from pathlib import Path

from tests.support.oned import Oned, _Handler, _Server
from tests.support.oned_conf import ONED_CONF, VMM_EXECRC
from tests.support.recorded import show

RELEASE = (7, 0)
CONF = Path("/etc/one/oned.conf")
REMOTES = Path("/var/lib/one/remotes")
AUTH = Path("/var/lib/one/.one/one_auth")
PORT = 2633


def install() -> None:
    """Lay the files."""
    for room in ("tm/shared", "datastore/fs"):
        (REMOTES / room).mkdir(parents=True)
    for path, text in (
        (REMOTES / "VERSION", f"{RELEASE[0]}.{RELEASE[1]}.0\n"),
        (CONF, ONED_CONF[RELEASE]),
        (CONF.parent / "vmm_exec/vmm_execrc", VMM_EXECRC),
        (AUTH, f"{Oned().session}\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    oneadmin = pwd.getpwnam("oneadmin")
    subprocess.run(["chown", "-R", f"{oneadmin.pw_uid}:{oneadmin.pw_gid}", "/var/lib/one"], check=True)
    subprocess.run(["chown", "-R", f"root:{oneadmin.pw_gid}", "/etc/one"], check=True)


def created(conf: str, pools: str) -> str:
    """A datastore of onelun's with what a oned that reads `conf` copies into it."""
    ours = next(block for block in re.findall(r"TM_MAD_CONF\s*=\s*\[(.*?)\]", conf, re.DOTALL) if '"onelun"' in block)
    attributes = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', ours))
    attributes.pop("NAME")
    attributes["ONELUN_POOLS"] = pools
    template = "".join(f"<{name}><![CDATA[{value}]]></{name}>" for name, value in attributes.items())
    return (
        "<DATASTORE_POOL><DATASTORE><ID>102</ID><NAME>onelun</NAME><DS_MAD>onelun</DS_MAD><TM_MAD>onelun</TM_MAD>"
        f"<TYPE>0</TYPE><TEMPLATE>{template}</TEMPLATE></DATASTORE></DATASTORE_POOL>"
    )


def serve(hosts: list[str]) -> None:
    """Answer for ever."""
    oned = Oned(".".join(map(str, RELEASE)))
    documents = (show("onehost-show-host01", NAME=host, ID=str(number)) for number, host in enumerate(hosts))
    oned.pools["hostpool"] = f"<HOST_POOL>{''.join(documents)}</HOST_POOL>"
    oned.vm("onevm-show-running", 0, host=hosts[0])
    oned.pools["datastorepool"] = created(CONF.read_text(), "nas1/tank")
    with _Server(("127.0.0.1", PORT), _Handler) as server:
        server.oned = oned
        print("oned serves", flush=True)
        threading.Thread(target=server.serve_forever).run()


if __name__ == "__main__":
    os.umask(0o022)
    serve(sys.argv[2:]) if sys.argv[1] == "serve" else install()
