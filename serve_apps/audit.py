"""The audit log: who changed something that concerns everybody, one line each.

A logger of its own, ``watchfloor.audit``, so that it can be kept apart. Invariant: no token
and no payload is in it, and a user's text cannot begin a line of its own.
"""

import logging

from starlette.requests import HTTPConnection

from serve_apps.auth import Identity

audit = logging.getLogger("watchfloor.audit")


def record(connection: HTTPConnection, identity: Identity, action: str, **what: object) -> None:
    """Write down that ``identity`` did ``action``."""
    fields = " ".join(f"{name}={value!r}" for name, value in what.items())
    client = connection.client.host if connection.client else None
    audit.warning("%s %s user=%r tenant=%r from=%s", action, fields, identity.user_id, identity.tenant, client)
