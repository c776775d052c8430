"""Streams of tables written as CSV, Parquet or JSON lines.

Invariant: what is written can be opened by people without harm: a text that a spreadsheet
would take for a formula gets an apostrophe in front, in CSV only.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from ingest.choices import FileFormat

FORMULA = r"^[=+\-@\t\r]"
"""How a spreadsheet's formula begins (OWASP, CSV injection)."""


class RowWriter(Protocol):
    """Takes tables of one schema, one after the other."""

    def write(self, table: pa.Table) -> None:
        """Append the rows."""
        ...


@contextmanager
def open_writer(kind: FileFormat, sink: IO[bytes], schema: pa.Schema) -> Iterator[RowWriter]:
    """Write to ``sink``; what was written is complete when the context is left."""
    if kind is FileFormat.JSONL:
        yield _JsonLines(sink)
    elif kind is FileFormat.CSV:
        with pa_csv.CSVWriter(sink, schema) as writer:
            yield _Csv(writer)
    else:
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            yield _Parquet(writer)


class _JsonLines:
    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink

    def write(self, table: pa.Table) -> None:
        self._sink.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in table.to_pylist())


class _Csv:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, table: pa.Table) -> None:
        for number, field in enumerate(table.schema):
            if pa.types.is_string(field.type):
                table = table.set_column(number, field, without_formulas(table.column(number)))
        self._writer.write_table(table)


class _Parquet:
    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table)


def without_formulas(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the texts with an apostrophe before each that a spreadsheet would compute."""
    quoted = pc.binary_join_element_wise("'", texts, "")
    return pc.if_else(pc.match_substring_regex(texts, FORMULA), quoted, texts)
