"""Settings of the hub and of the broadcasters.

Values only; ``cluster.settings.load_section`` reads them in the shells.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """How much the hub keeps, and how it journals."""

    history_size: int = 512
    """Publications kept per channel; older ones leave first."""
    history_ttl_s: float = 300.0
    """Age at which a publication leaves its channel's history, in seconds."""
    history_max_bytes: int = 1_048_576
    """Bytes of payload kept per channel."""
    total_max_bytes: int = 134_217_728
    """Bytes of payload kept in all histories; beyond it a publisher displaces its own channel's oldest."""
    log_size: int = 16_384
    """Publications of all channels that a lagging gateway may still read, and that the journal holds."""
    log_max_bytes: int = 16_777_216
    """Bytes of payload in that log."""
    max_channels: int = 50_000
    """Channels known at a time; beyond it the one that was quiet longest is forgotten."""
    channel_idle_s: float = 86_400.0
    """Time without history after which a channel is forgotten, in seconds; its next life has a new epoch."""
    idempotency_ttl_s: float = 300.0
    """Time for which a repeated key is recognised, in seconds."""
    idempotency_size: int = 32_768
    """Keys remembered at a time; the oldest leave first."""
    poll_timeout_s: float = 25.0
    """Longest time a poll waits for news, in seconds."""
    reply_max_bytes: int = 65_536
    """Payload in one poll reply; Ray inlines replies up to 100 kB."""
    reply_max_publications: int = 512
    """Publications in one poll reply."""
    presence_ttl_s: float = 60.0
    """Time after which the members of a gateway that was not heard of are gone, in seconds."""
    presence_members: int = 100_000
    """Members of all channels held at a time; more are not listed, and counted."""
    presence_channel_members: int = 5_000
    """Members of one channel held at a time; more are not listed, and counted."""
    presence_gateways: int = 256
    """Gateway replicas known at a time."""
    offset_block: int = 1_000_000
    """Offsets reserved in the journal per channel at a time; a restart skips the rest of a block."""
    journal_timeout_s: float = 3.0
    """Time after which an unanswered journal is taken to be away, in seconds; publishers wait for it, readers not."""
    journal_retry_s: float = 1.0
    """Mean pause before an absent journal is tried again, in seconds; jittered."""

    def __post_init__(self) -> None:
        for name in (
            "history_size", "history_max_bytes", "total_max_bytes", "log_size", "log_max_bytes", "max_channels",
            "idempotency_size", "reply_max_bytes", "reply_max_publications", "presence_members",
            "presence_channel_members", "presence_gateways",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in (
            "history_ttl_s", "channel_idle_s", "idempotency_ttl_s", "poll_timeout_s", "journal_timeout_s",
            "journal_retry_s", "presence_ttl_s",
        ):  # fmt: skip
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.offset_block < 4:
            raise ValueError(f"offset_block must be at least 4, got {self.offset_block}")


@dataclass(frozen=True, slots=True, kw_only=True)
class BroadcastSettings:
    """How one process sends its broadcasts."""

    buffer_size: int = 8_192
    """Messages that wait in this process at a time."""
    buffer_max_bytes: int = 4_194_304
    """Bytes of payload that wait in this process at a time."""
    progress_keys: int = 1_024
    """Progress bars that this process may move at a time; each holds its latest value only."""
    progress_per_s: int = 1_000
    """Values of progress bars sent per second; more wait, and only the latest of a bar does. A flush sends them all."""
    block_s: float = 0.05
    """Longest time a call waits for room in a full buffer, in seconds; progress never waits."""
    batch_size: int = 256
    """Messages sent in one call to the hub."""
    batch_max_bytes: int = 65_536
    """Bytes of payload sent in one call to the hub."""
    confirm_timeout_s: float = 5.0
    """Time in which the hub must confirm a batch before it is sent again, in seconds."""
    retry_for_s: float = 30.0
    """Time after which an unconfirmed batch is dropped, in seconds."""
    exit_flush_s: float = 2.0
    """Time that a process waits at its end for its last broadcasts, in seconds."""

    def __post_init__(self) -> None:
        for name in (
            "buffer_size", "buffer_max_bytes", "progress_keys", "progress_per_s", "batch_size", "batch_max_bytes",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("block_s", "exit_flush_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("confirm_timeout_s", "retry_for_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
