"""docs/devices.md: each topic and payload is one that the floor takes, or sends."""

import re
from pathlib import Path

import orjson
import pytest
from fakes_commands import make_command
from fakes_ingest import make_delivery

from ingest import directory_csv
from ingest.command import CommandState
from ingest.command_sender import wire_payload
from ingest.command_store import CommandSettings
from ingest.dead_letter import DeadLetter
from ingest.decoder import MAX_MESSAGE_CHARS, MAX_METRICS, ClockTolerance
from ingest.delivery import MAX_PAYLOAD_BYTES
from ingest.payload import AckStatus
from ingest.pipeline import Pipeline
from ingest.topics import TopicClass, TopicTree

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "devices.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```mqtt\n(\S+)\n(.*?)\n```", TEXT, re.DOTALL)


def test_every_topic_is_there() -> None:
    """In the table and with an example."""
    tree = TopicTree("wf")
    shown = {topic.kind for text, _ in EXAMPLES if (topic := tree.parse(text))}

    assert shown == set(TopicClass)
    for kind in TopicClass:
        assert f"| `wf/<tenant>/<device>/{kind}` |" in TEXT


@pytest.mark.parametrize(("topic", "payload"), EXAMPLES)
def test_every_example_is_understood(topic: str, payload: str) -> None:
    """Byte for byte; what the floor sends has the form that is shown."""
    pipeline = Pipeline(TopicTree("wf"), ClockTolerance())
    delivery = make_delivery(topic, payload.encode())
    kind = pipeline.topic_class(delivery)
    if kind is TopicClass.COMMAND:
        sent = orjson.loads(wire_payload(make_command(CommandState.QUEUED)))
        assert {name: type(value) for name, value in orjson.loads(payload).items()} == {
            name: type(value) for name, value in sent.items()
        }
        return
    judge = pipeline.judge_presence if kind is TopicClass.STATE else pipeline.judge
    judged = judge(delivery)

    assert judged is not None
    assert not isinstance(judged, DeadLetter), judged


def test_states_statuses_and_bounds_are_the_codes() -> None:
    """Numbers and words that a device's maker relies on."""
    assert {state for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ", TEXT, re.MULTILINE)
            for state in re.findall(r"\w+", row)} >= {str(state) for state in CommandState}  # fmt: skip
    assert all(f"`{status}`" in TEXT for status in AckStatus)
    assert f"at most {MAX_PAYLOAD_BYTES // 1024} KiB" in TEXT
    assert f"at most {MAX_MESSAGE_CHARS} characters" in TEXT
    assert f"Up to {MAX_METRICS} metrics" in TEXT
    assert f"at most {CommandSettings().max_open_per_device} commands" in TEXT


def test_the_csv_is_one() -> None:
    """As it stands there."""
    (text,) = re.findall(r"```csv\n(.*?)```", TEXT, re.DOTALL)
    sheet = directory_csv.read(text.encode())

    assert sheet.problems == ()
    assert len(sheet.entries) == 4
