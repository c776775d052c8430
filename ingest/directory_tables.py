"""SQL tables of tenants, their clients and users; devices are in ``directory.py``.

No passwords: who somebody is, an identity provider says. Keys are names that people chose;
there are no foreign keys, because devices of any tenant are accepted before anybody has
registered them, and the store checks what it writes.
"""

from sqlalchemy import Boolean, Column, Float, String, Table

from cluster.store import metadata

tenants = Table(
    "tenants",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("name", String(128)),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String(128), nullable=False),
)

clients = Table(
    "clients",
    metadata,
    Column("tenant", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("name", String(128)),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String(128), nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(64), index=True),
    Column("name", String(128)),
    Column("role", String(16)),
    Column("client_id", String(64)),
    Column("disabled", Boolean, nullable=False),
    Column("updated_at", Float, nullable=False),
    Column("updated_by", String(128), nullable=False),
)
"""``id`` is the ``sub`` of the user's tokens."""
