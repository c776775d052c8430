"""Writes ``.env.example``: every setting with its unit, meaning and default.

Reads the sources, for the docstring under a field exists nowhere else. Lists exactly the
dataclasses that somebody passes to ``load_section``, so a listed variable has an effect.
Invariant: the same sources give the same text.
"""

import ast
import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cluster.settings import Settings, env_name, section_name

ROOT = Path(__file__).parent.parent
PACKAGES = ("cluster", "realtime", "ingest", "training", "serve_apps")

HEADER = """\
# Every setting of the floor with its default. Set what differs in the environment before `watchfloor up`,
# or in a YAML file named by WATCHFLOOR_CONFIG (section.field: value). Written by `make docs`.
"""


def main() -> int:
    """Print the file."""
    sys.stdout.write(text())
    return 0


def text() -> str:
    """Return the content of ``.env.example``."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in _sources()}
    loaded = {name for tree in trees.values() for name in _loaded_sections(tree)}
    parts = [HEADER]
    for path, tree in sorted(trees.items(), key=lambda item: (_class_rank(item[1]), str(item[0]))):
        classes = (node for node in tree.body if isinstance(node, ast.ClassDef))
        parts.extend(_section(path, node) for node in classes if node.name in loaded | {Settings.__name__})
    return "\n".join(parts)


def _sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from (ROOT / package).rglob("*.py")


def _class_rank(tree: ast.Module) -> int:
    """Put the floor-wide settings first."""
    return 0 if any(isinstance(node, ast.ClassDef) and node.name == Settings.__name__ for node in tree.body) else 1


def _loaded_sections(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="load_section"), args=[ast.Name(id=name), *_]):
                yield name


def _section(path: Path, node: ast.ClassDef) -> str:
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    section: Any = getattr(module, node.name)
    docs = _field_docs(node)
    lines = [f"# --- {section_name(section) or 'floor'}: {(ast.get_docstring(node) or '').splitlines()[0]}"]
    for field in dataclasses.fields(section):
        lines.extend(f"# {line.strip()}".rstrip() for line in docs.get(field.name, "").splitlines())
        lines.append(f"#{env_name(section, field.name)}={_shown(_default(field))}")
    return "\n".join(lines) + "\n"


def _field_docs(node: ast.ClassDef) -> dict[str, str]:
    """Return the docstring under each field."""
    docs = {}
    for pair in zip(node.body, node.body[1:], strict=False):
        match pair:
            case (ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc)))):
                docs[name] = doc.strip()
    return docs


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else ""


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(str(item) for item in value)
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
