"""Reports beside the versions that they are about.

    {storage}/models/<type>/<version>/reports/<data set id>.json

Knows files only. Invariant: a report is written as a whole; made again on the same data set it replaces the
one before, which said the same of the same readings.
"""

import json
from collections.abc import Mapping
from typing import Any

from training.data.versions import ID
from training.errors import ModelFileError, ReportNotFoundError
from training.evaluation.report import FORMAT
from training.registry.storage import Storage
from training.registry.versions import folder_of

FOLDER = "reports"
SUFFIX = ".json"
KEPT = 50
"""Reports of one version; the oldest leave."""


def write_report(storage: Storage, model_type: str, version: str, report: Mapping[str, Any]) -> str:
    """Keep a report, and return its path on the storage."""
    path = f"{folder_of(model_type, version)}/{FOLDER}/{report['dataset']['id']}{SUFFIX}"
    storage.write(path, json.dumps(report, allow_nan=False).encode())
    folder = f"{folder_of(model_type, version)}/{FOLDER}"
    for name in storage.by_age(folder)[:-KEPT]:
        storage.delete(f"{folder}/{name}")
    return path


def list_reports(storage: Storage, model_type: str, version: str) -> list[str]:
    """Return the ids of the data sets that a version was judged on, the newest report first.

    Raises:
        ReportNotFoundError: there cannot be such a version.
    """
    try:
        names = storage.by_age(f"{folder_of(model_type, version)}/{FOLDER}")
    except ValueError:
        raise ReportNotFoundError(model_type, version, "") from None
    found = [name.removesuffix(SUFFIX) for name in reversed(names) if name.endswith(SUFFIX)]
    return [name for name in found if ID.fullmatch(name)]


def read_report(storage: Storage, model_type: str, version: str, dataset_id: str = "") -> dict[str, Any]:
    """Return a report; without a data set the newest one.

    Raises:
        ReportNotFoundError: there is none.
        ModelFileError: it is not what was written.
    """
    known = list_reports(storage, model_type, version)
    chosen = dataset_id or (known[0] if known else "")
    if chosen not in known:
        raise ReportNotFoundError(model_type, version, dataset_id)
    path = f"{folder_of(model_type, version)}/{FOLDER}/{chosen}{SUFFIX}"
    try:
        report = json.loads(storage.read(path))
    except (OSError, ValueError) as error:
        raise ModelFileError(storage.uri(path), f"the report cannot be read ({error})") from error
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ModelFileError(storage.uri(path), f"it is no report of format {FORMAT}")
    return report
