"""The engines that the configuration chooses. Each is imported only when it is chosen: a machine needs its own parts alone."""

from __future__ import annotations

from onelun.compute.agent import run_dir
from onelun.compute.connectors.base import Connector
from onelun.config import Compute, FilePool, LvmPool, Nas, Pool, ZfsPool
from onelun.model import Portal
from onelun.nas.backends.base import Backend
from onelun.nas.exporters.base import Exporter


def backend_of(name: str, pool: Pool) -> Backend:
    """The backend of the configured pool `name`."""
    match pool:
        case FilePool():
            from onelun.nas.backends.file.backend import FileBackend

            return FileBackend(name, pool.path)
        case ZfsPool():
            from onelun.nas.backends.zfs.backend import ZfsBackend

            return ZfsBackend(name, pool.dataset, properties=pool.properties)
        case LvmPool():
            from onelun.nas.backends.lvm.backend import LvmBackend

            return LvmBackend(name, pool.vg, pool.thin_pool)


def exporter_of(nas: Nas) -> Exporter:
    """The exporter of a NAS, whose section is there (the configuration was refused otherwise)."""
    if nas.exporter == "lio":
        from onelun.nas.exporters.lio.exporter import LioExporter

        assert nas.lio is not None
        return LioExporter(nas.name, Portal(nas.lio.address, nas.lio.port))
    from onelun.nas.exporters.tgt.exporter import TgtExporter

    assert nas.tgt is not None
    return TgtExporter(nas.name, nas.tgt.control, Portal(nas.tgt.address, nas.tgt.port))


def connector_of(compute: Compute) -> Connector:
    """The connector of a compute node."""
    run = f"{run_dir(compute)}/targets"
    if compute.connector == "iscsi":
        from onelun.compute.connectors.iscsi.connector import IscsiConnector

        return IscsiConnector(run, node=compute.name)
    from onelun.compute.connectors.userspace.connector import UserspaceConnector

    return UserspaceConnector(run, node=compute.name)
