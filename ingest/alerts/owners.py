"""Who must hear of the alerts of a batch of devices, as the directory says in the writer's own transaction."""

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, select, tuple_

from ingest.alerts.ledger import CHUNK
from ingest.directory import DeviceEntry, DeviceKey, devices

_OWNERS = select(
    devices.c.tenant, devices.c.device, devices.c.client_id, devices.c.site, devices.c.supervisor_id
).where(tuple_(devices.c.tenant, devices.c.device).in_(bindparam("pairs", expanding=True)))


class Owners:
    """Entries of some devices; asked for together, and only when the first alert begins."""

    def __init__(self, connection: Connection, of_devices: Iterable[DeviceKey]) -> None:
        self._connection = connection
        self._wanted = of_devices
        self._found: dict[DeviceKey, DeviceEntry] | None = None

    def of(self, tenant: str, device: str) -> DeviceEntry | None:
        """Return the entry of one of the devices; None: nobody registered it."""
        if self._found is None:
            pairs, self._found = sorted(set(self._wanted)), {}
            for start in range(0, len(pairs), CHUNK):
                for row in self._connection.execute(_OWNERS, {"pairs": pairs[start : start + CHUNK]}):
                    self._found[row.tenant, row.device] = DeviceEntry(**row._mapping)
        return self._found.get((tenant, device))
