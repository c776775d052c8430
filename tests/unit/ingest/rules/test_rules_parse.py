"""A file of rules is read strictly: every mistake is named with its line and its field."""

from pathlib import Path

import pytest

from ingest.alerts.model import Severity
from ingest.errors import RulesFileError
from ingest.rules.model import Absence, Level, Rate, Threshold
from ingest.rules.parse import parse_rules
from ingest.rules.rules_file import RulesFile, read_rules

HOT = """\
rules:
  - name: too-hot
    tenant: acme
    site: "hall-*"
    device: [pump-*, "fan-?"]
    metric: temperature
    threshold: {above: 80, clear_below: 75}
    for: 1h30m
    clear_for: 90
    severity: critical
    title: "{device} is hot"
    text: "{value:.1f} > {threshold} {{for}} {duration}"
    labels: {team: cooling, floor: 3}
"""
RULE = "rules:\n  - name: r\n    metric: m\n"


def test_a_rule_holds_what_the_file_says() -> None:
    """All keys of a threshold rule, in the units that the floor counts in."""
    (rule,) = parse_rules(HOT)

    assert rule.condition == Threshold(level=Level(raise_at=80, clear_at=75, is_upper=True))
    assert (rule.for_s, rule.clear_for_s, rule.severity) == (5400, 90, Severity.CRITICAL)
    assert rule.labels == {"team": "cooling", "floor": "3"}
    assert rule.text.format({"value": 81.26, "threshold": 80.0, "duration": "90m"}) == "81.3 > 80 {for} 90m"
    assert rule.watches("acme", "pump-1", "temperature", "hall-2")
    for other in (
        ("other", "pump-1", "temperature", "hall-2"),
        ("acme", "pump-1", "pressure", "hall-2"),
        ("acme", "fan-12", "temperature", "hall-2"),
        ("acme", "pump-1", "temperature", None),
        ("acme", "pump-1", "", "hall-2"),
    ):
        assert not rule.watches(*other)


def test_rate_and_absence_have_their_own_keys() -> None:
    """A rate per minute unless the file says otherwise; an absence without a metric is the device's."""
    rate, silent, quiet = parse_rules(
        RULE
        + "    rate: {below: -5, clear_above: -1, over: 5m}\n"
        + "  - name: s\n    absence: {after: 10m}\n"
        + "  - name: q\n    metric: m\n    absence: {after: 1d}\n"
    )

    level = Level(raise_at=-5, clear_at=-1, is_upper=False)
    assert rate.condition == Rate(level=level, per_s=60, over_s=300)
    assert silent.condition == Absence(after_s=600)
    assert silent.watches("t", "d", "", None)
    assert not quiet.watches("t", "d", "", None)
    assert quiet.watches("t", "d", "m", None)


MISTAKES = [
    ("", "line 1: the file is empty"),
    ("rules: [\n", "line 2: is no YAML"),
    ("- a\n", "line 1: must be a mapping"),
    ("rulez: []\n", "line 1: rulez is unknown; did you mean 'rules'?"),
    ("rules: {}\n", "line 1: rules must be a list"),
    ("rules:\n  - just text\n", "line 2: rules[0] must be a mapping"),
    ("rules:\n  - metric: m\n    threshold: {above: 1}\n", "line 2: rules[0] needs a name"),
    (RULE, "line 2: rules[0] needs one of threshold, rate, absence"),
    (RULE + "    threshold: {above: 1}\n    absence: {after: 5m}\n", "line 2: rules[0] needs one of"),
    (RULE + "    threshold: {above: 1}\n    metric: n\n", "line 5: rules[0].metric is given twice"),
    ("rules:\n  - name: r\n    threshold: {above: 1}\n", "line 2: rules[0] needs a metric"),
    (RULE + "    threshold: {above: 1, below: 0}\n", "line 4: rules[0].threshold needs either 'above' or 'below'"),
    (RULE + "    threshold: {above: hot}\n", "line 4: rules[0].threshold.above must be a number, got 'hot'"),
    (RULE + "    threshold: {above: .nan}\n", "line 4: rules[0].threshold.above must be a number"),
    (RULE + "    threshold: {above: inf}\n", "line 4: rules[0].threshold.above must be a finite number"),
    (RULE + "    threshold: {above: 1, clear_below: 2}\n", "line 4: rules[0].threshold.clear_below lies above"),
    (RULE + "    threshold: {above: 1, clear_above: 0}\n", "line 4: rules[0].threshold.clear_above does not go with"),
    (RULE + "    threshold: {above: 1}\n    for: 1:30\n", "line 5: rules[0].for must be a length of time"),
    (RULE + "    threshold: {above: 1}\n    for: -5\n", "line 5: rules[0].for must be a length of time"),
    (RULE + "    threshold: {above: 1}\n    for: 400d\n", "line 5: rules[0].for must be at most a year"),
    (RULE + "    threshold: {above: 1}\n    severity: bad\n", "line 5: rules[0].severity must be one of"),
    (RULE + "    threshold: {above: 1}\n    severty: high\n", "did you mean 'severity'?"),
    (RULE + "    threshold: {above: 1}\n    device: 'a;b'\n", "line 5: rules[0].device may hold"),
    (RULE + "    threshold: {above: 1}\n    labels: {1a: x}\n", "line 5: rules[0].labels has the name '1a'"),
    (RULE + "    threshold: {above: 1}\n    labels: {a: [x]}\n", "line 5: rules[0].labels.a must be text"),
    (RULE + "    threshold: {above: 1}\n    text: '{nobody}'\n", "line 5: rules[0].text names the field {nobody}"),
    (RULE + "    threshold: {above: 1}\n    text: '{value.real}'\n", "names the field {value.real}"),
    (RULE + "    threshold: {above: 1}\n    text: '{device:.1f}'\n", "formats {device}"),
    (RULE + "    threshold: {above: 1}\n    text: '{value:>9999999}'\n", "formats {value}"),
    (RULE + "    threshold: {above: 1}\n    text: '{value!r}'\n", "formats {value}"),
    (RULE + "    threshold: {above: 1}\n    title: 'a { b'\n", "line 5: rules[0].title has braces"),
    (RULE + "    rate: {above: 1}\n", "line 4: rules[0].rate needs 'over'"),
    (RULE + "    rate: {above: 1, over: 0s}\n", "line 4: rules[0].rate.over must be longer than nothing"),
    (RULE + "    absence: {after: 5m}\n    for: 5m\n", "line 5: rules[0].for has no meaning for absence"),
    (RULE + "    absence: {after: 5m}\n  - name: r\n    absence: {after: 1m}\n", "line 5: rules[1].name 'r' is taken"),
    ("rules: !!python/object/apply:os.system ['true']\n", "line 1: rules must be a list"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), MISTAKES, ids=[told for _, told in MISTAKES])
def test_a_mistake_is_told_with_its_place(text: str, told: str) -> None:
    """Nothing is guessed and nothing is left out."""
    if "!!python" in text:
        text = "rules: !!python/object:os.system {}\n"
    with pytest.raises(RulesFileError) as raised:
        parse_rules(text)

    assert any(told in problem for problem in raised.value.problems), raised.value.problems


def test_all_mistakes_are_told_at_once() -> None:
    """In the order of their lines, as a compiler does."""
    with pytest.raises(RulesFileError) as raised:
        parse_rules(RULE + "    threshold: {above: x}\n    severity: y\n    unknown: 5m\n")

    assert [problem.split(":")[0] for problem in raised.value.problems] == ["line 4", "line 5", "line 6"]


def test_a_bad_file_leaves_the_rules_before_it(tmp_path: Path) -> None:
    """The reader says when rules changed, and why a file is not in force."""
    path = tmp_path / "rules.yaml"
    followed = RulesFile(path)
    assert followed.poll() is None
    assert "cannot" in str(followed.problem) or "No such file" in str(followed.problem)

    path.write_text(HOT)
    assert [rule.name for rule in followed.poll() or ()] == ["too-hot"]
    assert followed.poll() is None
    assert followed.problem is None

    path.write_text(HOT.replace("critical", "bad"))
    assert followed.poll() is None
    assert "line 10" in str(followed.problem)

    path.write_text(HOT + "#\n")
    assert followed.poll() is not None
    assert followed.problem is None


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, and a file without end."""
    path = tmp_path / "rules.yaml"
    path.write_bytes(b"rules:\n  - \xff\n")
    with pytest.raises(RulesFileError, match="line 2: is not UTF-8"):
        read_rules(path)
    path.write_bytes(b"#" * (2 * 1024 * 1024))
    with pytest.raises(RulesFileError, match="larger than"):
        read_rules(path)


def test_the_example_is_good() -> None:
    """What the documentation begins with can be used."""
    assert len(read_rules(Path(__file__).parents[4] / "examples" / "rules.yaml")) == 4
