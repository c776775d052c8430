"""A device that does as it is told: commands in, answers out, each carried out once.

    python examples/commanded_device.py mqtt://user:password@127.0.0.1:1883 acme lamp-1
    watchfloor command acme/lamp-1 '{"do": "on"}' --wait

What it keeps to is written in docs/devices.md: it knows a command that comes again by its id,
and carries out none whose time is over.
"""

import json
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt

url, tenant, device = urlsplit(sys.argv[1]), sys.argv[2], sys.argv[3]
base = f"wf/{tenant}/{device}"
answers: dict[str, dict[str, str]] = {}


def carry_out(payload: dict[str, Any]) -> dict[str, str]:
    """Do what a command says; return the rest of the answer."""
    if payload.get("do") not in ("on", "off"):
        return {"status": "failed", "detail": 'a lamp can do "on" and "off"'}
    print(f"the lamp is {payload['do']}", flush=True)
    return {"status": "ok", "detail": f"is {payload['do']}"}


def on_connect(client: mqtt.Client, *_: Any) -> None:
    client.subscribe(f"{base}/cmd", qos=1)
    client.publish(f"{base}/state", '{"online": true}', qos=1, retain=True)


def on_message(client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
    command = json.loads(message.payload)
    key = command["command_id"]
    if key not in answers:
        client.publish(f"{base}/cmd/ack", json.dumps({"command_id": key, "status": "delivered"}), qos=1)
        is_over = time.time() * 1000 > command["expires_at"]
        late = {"status": "failed", "detail": "came too late"}
        answers[key] = {"command_id": key, **(late if is_over else carry_out(command["payload"]))}
        while len(answers) > 256:
            answers.pop(next(iter(answers)))
    client.publish(f"{base}/cmd/ack", json.dumps(answers[key]), qos=1)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=f"{tenant}-{device}", clean_session=False)
client.username_pw_set(url.username, url.password)
client.will_set(f"{base}/state", '{"online": false}', qos=1, retain=True)
client.on_connect, client.on_message = on_connect, on_message
client.connect(url.hostname or "", url.port or 1883, keepalive=10)
client.loop_forever()
