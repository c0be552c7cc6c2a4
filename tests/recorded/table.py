"""Every recorded action. A new one is one row, in the module of its kind."""

from __future__ import annotations

from tests.recorded.backups import BACKUPS
from tests.recorded.datastore import DATASTORE
from tests.recorded.migration import MIGRATION
from tests.recorded.mixed import MIXED
from tests.recorded.transfer import TRANSFER

ACTIONS = (*DATASTORE, *TRANSFER, *MIGRATION, *BACKUPS, *MIXED)
