"""Finds a folder of the user's working directory that hides one of our packages.

The working directory of a Ray Job comes first in ``sys.path``, and ``training`` or
``cluster`` are names that other people use too. Standard library only, and nothing of
ours is imported: this runs before anything else. Invariant: after ``check_shadowing``
returned, all five packages come from one place.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path

PACKAGES = ("cluster", "realtime", "ingest", "training", "serve_apps")


def find_shadow(home: Path, search_path: list[str]) -> tuple[str, Path] | None:
    """Return the first of our packages that would be imported from elsewhere, and from where.

    Args:
        home: the folder that holds this program's own packages.
        search_path: as ``sys.path``.
    """
    for name in PACKAGES:
        spec = PathFinder.find_spec(name, search_path)
        if spec is None:
            continue  # an editable install finds it by a hook of its own, which no folder can hide
        places = (
            [Path(spec.origin).parent]
            if spec.origin
            else [Path(each) for each in spec.submodule_search_locations or []]
        )
        if places and all(place.resolve().parent != home.resolve() for place in places):
            return name, places[0]
    return None


def check_shadowing() -> str | None:
    """Return what to tell the user when one of our packages is hidden; None when all is well."""
    home = Path(__file__).resolve().parent.parent
    found = find_shadow(home, sys.path)
    if found is None:
        return None
    name, place = found
    return (
        f"package {name!r} would be imported from {place}, not from {home / name}: "
        "rename that folder in your working directory, it hides Watchfloor's own"
    )
