"""docs/api.md names every route of the API with its role, and every error code."""

import re
from pathlib import Path

from serve_apps.auth import Role
from serve_apps.authorisation import ROUTES
from serve_apps.error_response import CODES

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
PREFIX = "/api/v1"


def test_every_route_is_documented_with_its_role() -> None:
    """The table and the code say the same."""
    rows = dict[str, str]()
    for cell, role in re.findall(r"^\| (`(?:GET|POST|PUT|PATCH|DELETE) /[^|]*`) \| (\w+) \|", TEXT, re.MULTILINE):
        for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) ([^`]+)`", cell):
            rows[f"{method} {re.sub(r'{[^}]*}', '{}', path)}"] = role
    expected = {
        f"{method} {path.removeprefix(PREFIX)}": role.value
        for (method, path), role in ROUTES.items()
        if path.startswith(PREFIX) and isinstance(role, Role)
    }

    assert rows == expected


def test_every_error_code_is_documented() -> None:
    """With the status it comes with."""
    assert dict(re.findall(r"^\| (\d{3}) \| `(\w+)` \|", TEXT, re.MULTILINE)) == {
        str(status): code for status, code in CODES.items()
    }
