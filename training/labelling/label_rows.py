"""Rows of the label tables as values, and back.

Decides nothing. Invariant: ``read_x`` gives what was written.
"""

from typing import Any

from sqlalchemy import Row

from training.labelling.labels import Label, LabelRequest, Provenance, RequestState, labels


def read_request(row: Row[Any]) -> LabelRequest:
    """Return a row of ``label_requests``."""
    values = dict(row._mapping)
    details = values.pop("question")
    values |= {"state": RequestState(values["state"]), "model_id": values["model_id"] or None}
    return LabelRequest(**values, details=details)


def read_label(row: Row[Any]) -> Label:
    """Return a row of ``labels``."""
    values = dict(row._mapping)
    del values["key"]
    return Label(**values | {"provenance": Provenance(values["provenance"])})


def write_label(label: Label, key: str) -> dict[str, Any]:
    """Return a label as a row of ``labels``.

    Args:
        label: the label.
        key: what makes a repeated one known.
    """
    return {column.name: getattr(label, column.name) for column in labels.c if column.name != "key"} | {"key": key}
