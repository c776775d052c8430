"""A file of rules, read strictly: every mistake is named with its line and its field.

Reads text, touches no file. YAML's nodes are walked instead of what ``safe_load`` makes of
them, because only nodes know their lines, their doubled keys, and that ``1:30`` was no number.
Invariant: either all rules of a text are good, or none is returned and all mistakes are told.
"""

import difflib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import yaml

from ingest.alerts.model import Severity
from ingest.errors import RulesFileError
from ingest.rules.model import Absence, Condition, Level, Rate, Rule, Template, Threshold

MAX_FILE_BYTES = 1024 * 1024
MAX_RULES = 1000
MAX_TEXT_CHARS = 2000
MAX_TITLE_CHARS = 256
MAX_LABELS = 32
MAX_GLOBS = 64
MAX_PROBLEMS = 50
"""Mistakes told at once; a file that is none of ours has thousands."""
MAX_DURATION_S = 366 * 86_400.0

RULE_KEYS = (
    "name", "metric", "tenant", "site", "device", "threshold", "rate", "absence",
    "for", "clear_for", "severity", "title", "text", "labels",
)  # fmt: skip
CONDITIONS = ("threshold", "rate", "absence")
LEVEL_KEYS = ("above", "below", "clear_below", "clear_above")

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_GLOB = re.compile(r"[A-Za-z0-9_.:*?\[\]! -]{1,128}")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")
_PRINTABLE = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]*")

T = TypeVar("T")

TITLES = {
    "threshold": "{metric} of {device} is out of bounds",
    "rate": "{metric} of {device} changes too fast",
    "absence": "{device} is silent",
}
TEXTS = {
    "threshold": "{metric} is {value}, the limit is {threshold}",
    "rate": "{metric} changes by {value}, the limit is {threshold}",
    "absence": "nothing arrived for {duration}",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a file."""

    line: int
    """From 1."""
    field: str
    """Such as ``rules[2].threshold.above``; empty: the file as a whole."""
    text: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.field + ' ' if self.field else ''}{self.text}"


def parse_rules(text: str, source: str = "rules") -> tuple[Rule, ...]:
    """Return the rules of a YAML text, in order.

    Args:
        text: the file's content.
        source: what to call it in errors.

    Raises:
        RulesFileError: with every mistake.
    """
    reader = _Reader(text)
    rules = reader.rules()
    if reader.problems:
        told = sorted(reader.problems[:MAX_PROBLEMS], key=lambda problem: problem.line)
        raise RulesFileError(source, tuple(map(str, told)))
    return rules


class _WrongError(ValueError):
    """A value cannot be used; becomes a ``Problem`` where its node is known."""


class _Reader:
    """One pass through one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.problems: list[Problem] = []

    def rules(self) -> tuple[Rule, ...]:
        root = self._compose()
        if root is None:
            return ()
        document = self._mapping(root, "", ("rules",))
        if document is None:
            return ()
        listed = document.get("rules")
        if listed is None:
            self._add(root, "", "must hold the key 'rules' with a list")
            return ()
        if _is_null(listed):
            return ()
        if not isinstance(listed, yaml.SequenceNode):
            self._add(listed, "rules", "must be a list")
            return ()
        if len(listed.value) > MAX_RULES:
            self._add(listed, "rules", f"holds {len(listed.value)} rules; at most {MAX_RULES} are allowed")
            return ()
        found = []
        lines: dict[str, int] = {}
        for number, node in enumerate(listed.value):
            rule = self._rule(node, f"rules[{number}]")
            if rule is None:
                continue
            if rule.name in lines:
                self._add(
                    node, f"rules[{number}].name", f"{rule.name!r} is taken by the rule of line {lines[rule.name]}"
                )
            lines[rule.name] = _line(node)
            found.append(rule)
        return tuple(found)

    def _compose(self) -> yaml.Node | None:
        if len(self._text.encode("utf-8", "surrogatepass")) > MAX_FILE_BYTES:
            self.problems.append(Problem(1, "", f"the file is larger than {MAX_FILE_BYTES} bytes"))
            return None
        try:
            node = yaml.compose(self._text, Loader=yaml.SafeLoader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.problems.append(Problem(mark.line + 1 if mark else 1, "", f"is no YAML: {error.problem}"))
            return None
        except (yaml.YAMLError, RecursionError) as error:
            self.problems.append(Problem(1, "", f"is no YAML: {type(error).__name__}"))
            return None
        if node is None:
            self.problems.append(Problem(1, "", "the file is empty; no rules are written as 'rules: []'"))
        return node

    def _rule(self, node: yaml.Node, path: str) -> Rule | None:
        before = len(self.problems)
        fields = self._mapping(node, path, RULE_KEYS)
        if fields is None:
            return None
        name = self._read(fields, "name", path, _name)
        if name is None and "name" not in fields:
            self._add(node, path, "needs a name")
        kinds = [kind for kind in CONDITIONS if kind in fields]
        if len(kinds) != 1:
            self._add(node, path, f"needs one of {', '.join(CONDITIONS)}" + (f", has {len(kinds)}" if kinds else ""))
            return None
        kind = kinds[0]
        condition = self._condition(kind, fields[kind], f"{path}.{kind}")
        metric = self._read(fields, "metric", path, _globs)
        if metric is None and "metric" not in fields and kind != "absence":
            self._add(node, path, "needs a metric")
        if kind == "absence":
            for key in ("for", "clear_for"):
                if key in fields:
                    self._add(fields[key], f"{path}.{key}", "has no meaning for absence: it is told by 'after'")
        limits = {"title": MAX_TITLE_CHARS, "text": MAX_TEXT_CHARS}
        words = {
            key: self._read(fields, key, path, lambda one, limit=limit: _template(one, limit))  # type: ignore[misc]
            for key, limit in limits.items()
        }
        rule_parts = {
            "tenant": self._read(fields, "tenant", path, _globs),
            "site": self._read(fields, "site", path, _globs),
            "device": self._read(fields, "device", path, _globs),
            "for_s": self._read(fields, "for", path, _duration),
            "clear_for_s": self._read(fields, "clear_for", path, _duration),
            "severity": self._read(fields, "severity", path, _severity),
            "labels": self._labels(fields.get("labels"), f"{path}.labels"),
        }
        if len(self.problems) > before or name is None or condition is None:
            return None
        rule = Rule(
            name=name,
            condition=condition,
            metric=metric or (),
            title=words["title"] or Template.parse(TITLES[kind]),
            text=words["text"] or Template.parse(TEXTS[kind]),
        )
        return replace(rule, **{key: value for key, value in rule_parts.items() if value is not None})  # type: ignore[arg-type]

    def _condition(self, kind: str, node: yaml.Node, path: str) -> Condition | None:
        keys = {"threshold": LEVEL_KEYS, "rate": (*LEVEL_KEYS, "per", "over"), "absence": ("after",)}[kind]
        fields = self._mapping(node, path, keys)
        if fields is None:
            return None
        if kind == "absence":
            if "after" not in fields:
                self._add(node, path, "needs 'after', such as 10m")
            after_s = self._read(fields, "after", path, _positive_duration)
            return None if after_s is None else Absence(after_s=after_s)
        level = self._level(node, fields, path)
        if kind == "threshold":
            return None if level is None else Threshold(level=level)
        per_s = self._read(fields, "per", path, _positive_duration) if "per" in fields else 60.0
        if "over" not in fields:
            self._add(node, path, "needs 'over': the stretch of time that the change is measured on, such as 5m")
        over_s = self._read(fields, "over", path, _positive_duration)
        return (
            None if level is None or per_s is None or over_s is None else Rate(level=level, per_s=per_s, over_s=over_s)
        )

    def _level(self, node: yaml.Node, fields: dict[str, yaml.Node], path: str) -> Level | None:
        if ("above" in fields) == ("below" in fields):
            self._add(node, path, "needs either 'above' or 'below'")
            return None
        is_upper = "above" in fields
        wrong = "clear_above" if is_upper else "clear_below"
        if wrong in fields:
            right = "clear_below" if is_upper else "clear_above"
            self._add(
                fields[wrong], f"{path}.{wrong}", f"does not go with {'above' if is_upper else 'below'}; use {right}"
            )
            return None
        clear_key = "clear_below" if is_upper else "clear_above"
        raise_at = self._read(fields, "above" if is_upper else "below", path, _number)
        clear_at = self._read(fields, clear_key, path, _number) if clear_key in fields else raise_at
        if raise_at is None or clear_at is None:
            return None
        if (clear_at > raise_at) if is_upper else (clear_at < raise_at):
            side = "above" if is_upper else "below"
            self._add(fields[clear_key], f"{path}.{clear_key}", f"lies {side} the level that raises ({raise_at:g})")
            return None
        return Level(raise_at=raise_at, clear_at=clear_at, is_upper=is_upper)

    def _labels(self, node: yaml.Node | None, path: str) -> dict[str, str] | None:
        if node is None:
            return None
        if not isinstance(node, yaml.MappingNode):
            self._add(node, path, "must be a mapping of names to texts")
            return None
        labels: dict[str, str] = {}
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if not _LABEL.fullmatch(name):
                self._add(key, path, f"has the name {str(name)!r}; it must be 1-64 of [A-Za-z0-9_], no digit first")
            elif name in labels:
                self._add(key, f"{path}.{name}", "is given twice")
            else:
                try:
                    labels[name] = _text(value, 256)
                except _WrongError as error:
                    self._add(value, f"{path}.{name}", str(error))
        if len(labels) > MAX_LABELS:
            self._add(node, path, f"holds {len(labels)} labels; at most {MAX_LABELS} are allowed")
        return labels

    def _mapping(self, node: yaml.Node, path: str, keys: tuple[str, ...]) -> dict[str, yaml.Node] | None:
        if not isinstance(node, yaml.MappingNode):
            self._add(node, path, f"must be a mapping with {', '.join(keys)}")
            return None
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            if name not in keys:
                near = difflib.get_close_matches(name, keys, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(keys)}"
                self._add(key, f"{path}.{name[:64]}".lstrip("."), f"is unknown{hint}")
            elif name in found:
                self._add(key, f"{path}.{name}".lstrip("."), "is given twice")
            else:
                found[name] = value
        return found

    def _read(self, fields: dict[str, yaml.Node], key: str, path: str, parse: Callable[[yaml.Node], T]) -> T | None:
        if key not in fields:
            return None
        try:
            return parse(fields[key])
        except _WrongError as error:
            self._add(fields[key], f"{path}.{key}", str(error))
            return None

    def _add(self, node: yaml.Node, path: str, text: str) -> None:
        self.problems.append(Problem(_line(node), path, text))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_null(node: yaml.Node) -> bool:
    return bool(node.tag == "tag:yaml.org,2002:null")


def _text(node: yaml.Node, limit: int) -> str:
    if not isinstance(node, yaml.ScalarNode) or _is_null(node):
        raise _WrongError("must be text")
    text = str(node.value)
    if not 0 < len(text) <= limit or not _PRINTABLE.fullmatch(text):
        raise _WrongError(f"must be 1-{limit} printable characters")
    return text


def _name(node: yaml.Node) -> str:
    text = _text(node, 64)
    if not _NAME.fullmatch(text):
        raise _WrongError(f"must be 1-64 of [a-z0-9_.-] and begin with a letter or digit, got {text!r}")
    return text


def _globs(node: yaml.Node) -> tuple[str, ...]:
    nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
    if not 0 < len(nodes) <= MAX_GLOBS:
        raise _WrongError(f"must be one name with * and ?, or a list of 1-{MAX_GLOBS}")
    globs = tuple(_text(one, 128) for one in nodes)
    for glob in globs:
        if not _GLOB.fullmatch(glob):
            raise _WrongError(f"may hold letters, digits, _ . : - space * ? [ ] and !, got {glob!r}")
    return globs


def _number(node: yaml.Node) -> float:
    text = _text(node, 64)
    try:
        number = float(text)
    except ValueError:
        raise _WrongError(f"must be a number, got {text!r}") from None
    if not math.isfinite(number) or "_" in text:
        raise _WrongError(f"must be a finite number, got {text!r}")
    return number


def _duration(node: yaml.Node) -> float:
    text = _text(node, 32)
    match = _DURATION.fullmatch(text)
    if match:
        parts = (float(part or 0) for part in match.groups())
        seconds = sum(part * size for part, size in zip(parts, (86_400, 3600, 60, 1), strict=True))
    elif re.fullmatch(r"\d+(\.\d+)?", text):
        seconds = float(text)
    else:
        raise _WrongError(f"must be a length of time such as 30s, 5m, 2h, 1d or 1h30m, got {text!r}")
    if seconds > MAX_DURATION_S:
        raise _WrongError(f"must be at most a year, got {text!r}")
    return seconds


def _positive_duration(node: yaml.Node) -> float:
    seconds = _duration(node)
    if seconds <= 0:
        raise _WrongError("must be longer than nothing")
    return seconds


def _severity(node: yaml.Node) -> Severity:
    text = _text(node, 32)
    try:
        return Severity(text)
    except ValueError:
        raise _WrongError(f"must be one of {', '.join(Severity)}, got {text!r}") from None


def _template(node: yaml.Node, limit: int) -> Template:
    try:
        return Template.parse(_text(node, limit))
    except _WrongError:
        raise
    except ValueError as error:
        raise _WrongError(str(error)) from None
