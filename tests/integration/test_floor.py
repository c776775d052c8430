"""The running floor as its users meet it on the command line."""

import json
import re
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import paho.mqtt.client as paho
import pytest

from ingest.device_mqtt import DeviceConnection
from ingest.mqtt_address import MqttAddress
from tests.floors import Floor
from tests.ingest_parts import eventually

pytestmark = pytest.mark.floor


def test_status_is_one_object(floor: Floor) -> None:
    """Every part runs."""
    status = floor.status()

    assert {"url", "services", "readings_total", "alerts_total", "dead_letters_total", "runs"} <= status.keys()
    assert status["phase"] == "ready"
    states = {name: part["state"] for name, part in status["services"].items()}
    assert {"mqtt", "redis", "database", "storage", "ray", "gateway", "ingest", "detector"} <= states.keys()
    assert set(states.values()) == {"running"}


def test_what_cannot_be_used_is_counted_and_ingest_goes_on(floor: Floor) -> None:
    """A broken reading and a stray topic: two dead letters more, by their reasons, and readings still come."""
    before = floor.status()
    urls = json.loads((floor.data_dir / "floor.json").read_text(encoding="utf-8"))["urls"]
    client: DeviceConnection[int] = DeviceConnection(MqttAddress.parse(urls["MQTT_URL"]), "broken-sender")
    client.start()
    try:
        assert client.wait_connected(20)
        client.publish("wf/demo/broken-1/telemetry", b'{"values": {"value": 1', 1)
        client.publish("wf/demo/broken-1/telemetri", b'{"values": {"value": 1}}', 2)
        assert eventually(lambda: client.num_open() == 0)
    finally:
        client.stop()

    wanted = before["dead_letters_total"] + 2
    assert eventually(lambda: floor.status()["dead_letters_total"] >= wanted, 60, every_s=1), floor.status()
    counted = floor.status()
    assert eventually(lambda: floor.status()["readings_total"] > counted["readings_total"], 60, every_s=1)
    after = floor.status()
    assert after["dead_letters_total"] == wanted
    for reason in ("not_json", "unknown_topic"):
        assert after["dead_letters"][reason] == before["dead_letters"].get(reason, 0) + 1
    table = floor.cli("status").stdout
    assert re.search(r"newest reasons +(not_json|unknown_topic) \d", table), table


def test_a_command_goes_to_a_device_and_its_answer_comes_back(floor: Floor) -> None:
    """Followed to its end on the command line: done, or failed with the device's words, or refused at the door."""
    done = floor.cli("command", "demo/pump-7", '{"do": "identify"}', "--wait", "--json")
    failed = floor.cli("command", "demo/pump-7", '{"do": "fly"}', "--wait", "--request-id", "a-request-id")
    again = floor.cli("command", "demo/pump-7", '{"do": "fly"}', "--request-id", "a-request-id", "--json")
    nobody = floor.cli("command", "demo/nobody", "{}")
    nonsense = floor.cli("command", "demo/pump-7", "identify")
    device = floor.cli("directory", "show", "device", "demo/pump-7", "--json")

    command = json.loads(done.stdout)
    assert (done.returncode, command["state"], command["user_id"]) == (0, "ok", "local"), done.stderr
    assert command["detail"].startswith("pump-7 blinks")
    assert failed.returncode == 1
    assert failed.stdout.splitlines()[-1].endswith('failed this device can do "identify" and "restart"')
    assert json.loads(again.stdout)["id"] == failed.stdout.split()[0]
    assert (nobody.returncode, nonsense.returncode) == (2, 2)
    assert "there is no device demo/nobody" in nobody.stderr
    assert "the payload is no JSON" in nonsense.stderr
    assert json.loads(device.stdout)["supervisor_name"] == "Samuel South"


def test_speed_and_start_of_the_demo_are_said(floor: Floor) -> None:
    """Nobody has to wonder whether a part of a series was chosen to look good."""
    detail = floor.status()["services"]["demo"]["detail"]

    assert "50 readings/s each" in detail
    assert "every series from 0% of its length" in detail
    assert f"the demo replays {detail}" in floor.up_said


def test_a_refused_mqtt_5_client_is_told_what_helps(floor: Floor) -> None:
    """The embedded broker speaks 3.1.1 only, and a device's maker would look in vain for the reason."""
    record = json.loads((floor.data_dir / "floor.json").read_text(encoding="utf-8"))
    broker = urlsplit(record["urls"]["MQTT_URL"])
    assert "MQTT_URL" not in floor.status()["services"]["mqtt"]["detail"]
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, "five", protocol=paho.MQTTv5, reconnect_on_failure=False)
    client.username_pw_set(broker.username, broker.password)

    client.connect(str(broker.hostname), broker.port or 0)
    client.loop_start()
    try:
        assert eventually(lambda: "MQTT_URL" in floor.status()["services"]["mqtt"]["detail"], every_s=0.5)
    finally:
        client.loop_stop()
    detail = floor.status()["services"]["mqtt"]["detail"]
    assert re.search(r"refused MQTT 5 clients: (five|127\.0\.0\.1) \(use 3\.1\.1, or set MQTT_URL", detail)


def test_a_second_up_says_that_it_runs(floor: Floor) -> None:
    """It gives the address and starts nothing."""
    done = floor.cli("up")

    assert done.returncode == 0
    assert "already runs" in done.stdout
    assert floor.url in done.stdout


def test_page_and_api_ask_who_is_there(floor: Floor) -> None:
    """No data without a token; with one, the API answers."""
    url = f"{floor.url}/api/v1/status"
    with pytest.raises(HTTPError) as refused:
        urlopen(url, timeout=5)
    with urlopen(Request(url, headers={"Authorization": f"Bearer {floor.token()}"}), timeout=5) as answer:
        assert answer.status == 200

    assert refused.value.code == 401
    refused.value.close()


def test_doctor_finds_no_error_and_lists_what_is_exposed(floor: Floor) -> None:
    """Ray, broker and stores listen on loopback; what does not is named, and known to us."""
    done = floor.cli("doctor", "--json")

    assert done.returncode == 0, done.stdout
    exposed = re.findall(r"\S+:\d+ \(([^)]*)\)", done.stdout)
    assert set(exposed) <= {"haproxy", "ray::ServeRepli"}


def test_env_points_to_this_floor(floor: Floor) -> None:
    """The lines work in a shell and name the floor's own Ray and token."""
    env = floor.env()

    assert env["RAY_ADDRESS"].startswith("127.0.0.1:")
    assert env["RAY_API_SERVER_ADDRESS"].startswith("http://127.0.0.1:")
    assert env["RAY_AUTH_MODE"] == "token"
    assert env["RAY_AUTH_TOKEN_PATH"] == str(floor.data_dir / "ray-token")


def test_lanes_are_shown(floor: Floor) -> None:
    """The seed's `inspect active_queues`."""
    done = floor.cli("lanes")

    assert done.returncode == 0
    assert all(name in done.stdout for name in ("ml_training", "ai_processing", "general", "external"))
