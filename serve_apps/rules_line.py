"""What ``watchfloor rules`` shows: the rules of a file, and a dry run as tables and lines of blocks.

Turns outcomes into words for a terminal; judges nothing.
"""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group
from rich.table import Table
from rich.text import Text

from ingest.alerts.model import iso
from ingest.rules.model import Absence, Rate, Rule, duration_text
from ingest.rules.trial import Firing, RuleTrial, SeriesTrial, Trial

BLOCKS = "▁▂▃▄▅▆▇█"
SHOWN_SERIES = 4
"""Series drawn per rule."""
SHOWN_FIRINGS = 5
"""Alerts listed per series."""


def rules_json(rules: Sequence[Rule]) -> list[dict[str, object]]:
    """Return the rules of a good file for scripts."""
    return [
        {
            "name": rule.name,
            "kind": rule.kind,
            "severity": rule.severity.value,
            "watches": _watches(rule),
            "fires": _fires(rule),
        }
        for rule in rules
    ]


def render_rules(path: Path, rules: Sequence[Rule]) -> Group:
    """Return the rules of a good file as a table."""
    table = _table("rule", "severity", "watches", "fires")
    for rule in rules:
        table.add_row(rule.name, rule.severity.value, _watches(rule), _fires(rule))
    return Group(Text(f"{path}: {len(rules)} {'rule' if len(rules) == 1 else 'rules'}, no mistakes"), table)


def render_trial(trial: Trial, source: str) -> Group:
    """Return a dry run: a table of the rules, then each rule's series with their alerts."""
    head = Text(
        f"{trial.num_readings:,} readings of {source}, {_day(trial.begins_at)} to {_day(trial.ends_at)}: "
        f"{sum(one.num_alerts for one in trial.rules)} alerts, {trial.alerts_per_day:.2f} a day"
    )
    table = _table("rule", "series", "alerts", "a day", "fires")
    for one in trial.rules:
        table.add_row(
            one.rule.name, str(len(one.series)), str(one.num_alerts), f"{one.alerts_per_day:.2f}", _fires(one.rule)
        )
    parts: list[Text | Table] = [head, table]
    for one in trial.rules:
        parts += _render_rule(one)
    return Group(*parts)


def _render_rule(trial: RuleTrial) -> list[Text | Table]:
    if not trial.series:
        return [Text(f"\n{trial.rule.name} watches no series of these data", "yellow")]
    parts: list[Text | Table] = []
    for series in trial.series[:SHOWN_SERIES]:
        name = Text(f"\n{trial.rule.name}  {'/'.join(filter(None, series.key))}", "bold")
        parts.append(name.append(f"  {_range(series)}", "not bold dim"))
        parts += _drawn(series)
        parts += [_firing_line(firing) for firing in series.firings[:SHOWN_FIRINGS]]
        if len(series.firings) > SHOWN_FIRINGS:
            parts.append(Text(f"  and {len(series.firings) - SHOWN_FIRINGS} more", "dim"))
    if len(trial.series) > SHOWN_SERIES:
        parts.append(Text(f"\nand {len(trial.series) - SHOWN_SERIES} more series of {trial.rule.name}", "dim"))
    return parts


def _drawn(series: SeriesTrial) -> list[Text]:
    lines = []
    known = [value for value in series.columns if value is not None]
    if known:
        low, high = min(known), max(known)
        line = Text("  ")
        for value, is_firing in zip(series.columns, series.firing_columns, strict=True):
            line.append(_block(value, low, high), "red" if is_firing else "cyan")
        lines.append(line)
    if any(series.firing_columns):
        # A row of its own: colours do not reach a file, nor everybody's eyes.
        lines.append(Text("  " + "".join("▔" if one else " " for one in series.firing_columns).rstrip(), "red"))
    return lines


def _range(series: SeriesTrial) -> str:
    known = [value for value in series.columns if value is not None]
    values = f", {min(known):.6g} to {max(known):.6g}" if known else ""
    return f"{_day(series.begins_at)} to {_day(series.ends_at)}{values}"


def _block(value: float | None, low: float, high: float) -> str:
    if value is None:
        return " "
    share = (value - low) / (high - low) if high > low else 0.0
    return BLOCKS[min(len(BLOCKS) - 1, int(share * len(BLOCKS)))]


def _firing_line(firing: Firing) -> Text:
    if firing.cleared_at is None:
        ending = "still firing at the end"
    else:
        ending = f"cleared after {_length(firing.cleared_at - firing.raised_at)}"
    return Text(f"  {_minute(firing.raised_at)}  {firing.text}; {ending}")


def _watches(rule: Rule) -> str:
    parts = [
        f"{name} {' or '.join(globs)}"
        for name in ("tenant", "site", "device")
        if (globs := getattr(rule, name)) != ("*",)
    ]
    what = " or ".join(rule.metric) if rule.metric else "any reading"
    return f"{what} of {', '.join(parts) if parts else 'every device'}"


def _fires(rule: Rule) -> str:
    condition = rule.condition
    if isinstance(condition, Absence):
        return f"after {duration_text(condition.after_s)} without one"
    level = condition.level
    side, back = ("above", "below") if level.is_upper else ("below", "above")
    what = f"{side} {level.raise_at:g}"
    if isinstance(condition, Rate):
        what = f"changing {what} per {duration_text(condition.per_s)} over {duration_text(condition.over_s)}"
    if rule.for_s:
        what += f" for {duration_text(rule.for_s)}"
    if level.clear_at != level.raise_at or rule.clear_for_s:
        what += f", until {back} {level.clear_at:g}"
    return what + (f" for {duration_text(rule.clear_for_s)}" if rule.clear_for_s else "")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, header_style="dim", overflow="fold")
    return table


def _day(at: float) -> str:
    return str(iso(at))[:10]


def _minute(at: float) -> str:
    return str(iso(at))[:16].replace("T", " ")


def _length(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
