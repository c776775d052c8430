"""The learning loop's figures: every part of this folder in one run, through the shipped code.

A part is a module with ``rows(seeds)``, which yields one flat object after another: at least
``part``, the case's name, the figure, its interval and the seeds. Opponents that need packages of
their own run in an environment of their own, which the part makes at its first run.

    python -m bench.learning [--json] [--part anomaly --part ...] [--seeds 10]
"""

import argparse
import importlib
import json
import pkgutil
import sys
import time

import bench.learning


def parts() -> list[str]:
    """Return the names of the parts: the public modules of this folder."""
    found = pkgutil.iter_modules(bench.learning.__path__)
    return sorted(one.name for one in found if not one.name.startswith("_"))


def main() -> None:
    """Measure, and print a row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON line a row")
    parser.add_argument("--part", action="append", choices=parts(), help="only these parts")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    for name in options.part or parts():
        begun = time.perf_counter()
        print(f"== {name}", file=sys.stderr, flush=True)
        for row in importlib.import_module(f"bench.learning.{name}").rows(options.seeds):
            shown = json.dumps(row) if options.json else "  ".join(f"{key} {value}" for key, value in row.items())
            print(shown, flush=True)
        print(f"   {time.perf_counter() - begun:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
