"""The front of a lab as a shell needs it. It loads little: tests start `lab exec` hundreds of times."""

from __future__ import annotations

import os

from tests.support.lab import record
from tests.support.lab.place import CHECKOUT, Lab
from tests.support.sandbox.place import Place


class Front(Place):
    """The machine's own part of a lab, in the words of the sandbox, whose broker and frontend it has."""

    # Of the user ids that sandboxes leave.
    first_uid = 61106

    @property
    def mark(self) -> str:
        """Another than a sandbox's: `scripts/sandbox down` must not take it for one."""
        return f"onelun-lab-{self.number}:{self.dir}"


def front(lab: Lab) -> Front:
    """The front of a lab."""
    return Front(lab.number, lab.dir)


def environment(lab: Lab) -> dict[str, str]:
    """What a command on `front` finds in its environment: that of `scripts/sandbox env`."""
    place = front(lab)
    return {
        "ONELUN_LAB_DIR": lab.dir,
        "ONELUN_CONFIG": place.config("frontend"),
        "ONELUN_SOCKET": place.frontend_socket,
        "ONELUN_DATASTORES": place.datastores,
        "PYTHONPATH": f"{CHECKOUT}/lib",
        "PATH": f"{CHECKOUT}/.venv/bin:{os.environ['PATH']}",
    } | ({"ONELUN_AMQP_URL": url} if (url := record.read(lab).get("url")) else {})
