"""What people choose from on the command line: brokers, what to export, and as which file.

Standard library only, because every start of the command line loads it.
"""

from enum import StrEnum


class BrokerKind(StrEnum):
    """A broker that files can be made for."""

    MOSQUITTO = "mosquitto"
    NATS = "nats"


class ExportKind(StrEnum):
    """What can be taken out."""

    TELEMETRY = "telemetry"
    ALERTS = "alerts"
    DEAD_LETTERS = "dead-letters"


class FileFormat(StrEnum):
    """How rows are written."""

    CSV = "csv"
    PARQUET = "parquet"
    JSONL = "jsonl"
