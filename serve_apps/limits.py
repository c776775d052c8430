"""What one replica lets through of all its clients together: connects, commands, HTTP calls.

The limits of a single connection are its session's. No clock: the caller passes monotonic
seconds. Invariant: every refusal is counted under one of ``Limit``'s few names.
"""

from collections.abc import Callable
from enum import StrEnum

from serve_apps.auth import Identity
from serve_apps.gateway_settings import GatewaySettings
from serve_apps.rate import KeyedBuckets, TokenBucket

MAX_KEYS = 20_000
"""Identities and tenants whose buckets are remembered."""


class Limit(StrEnum):
    """What was hit; the label of the metric."""

    CONNECTS = "connects"
    REPLICA_CONNECTIONS = "replica_connections"
    TENANT_CONNECTIONS = "tenant_connections"
    USER_CONNECTIONS = "user_connections"
    TENANT_COMMANDS = "tenant_commands"
    HTTP_CALLS = "http_calls"


class Limits:
    """The buckets that the clients of a replica share."""

    def __init__(self, settings: GatewaySettings, on_limited: Callable[[Limit], None], now_s: float) -> None:
        self.on_limited = on_limited
        self._connects = TokenBucket(settings.connects_per_s, settings.connect_burst, now_s)
        self._commands = KeyedBuckets(settings.tenant_commands_per_s, settings.tenant_command_burst, MAX_KEYS)
        self._calls = KeyedBuckets(settings.http_per_s, settings.http_burst, MAX_KEYS)

    def take_connect(self, now_s: float) -> int:
        """Let one more connection begin; else return in how many seconds to come back."""
        if self._connects.take(now_s):
            return 0
        self.on_limited(Limit.CONNECTS)
        return self._connects.wait_s

    def take_command(self, identity: Identity, now_s: float) -> bool:
        """Tell whether the tenant of ``identity`` may send one more command; without a tenant it may."""
        if identity.tenant is None or self._commands.take(identity.tenant, now_s) == 0:
            return True
        self.on_limited(Limit.TENANT_COMMANDS)
        return False

    def take_call(self, identity: Identity, now_s: float) -> int:
        """Let one HTTP call of ``identity`` through; else return in how many seconds to try again."""
        wait_s = self._calls.take((identity.tenant, identity.user_id), now_s)
        if wait_s:
            self.on_limited(Limit.HTTP_CALLS)
        return wait_s
