"""What the answers of ``/api/v1`` hold, as the OpenAPI document says it.

Names and kinds of the outer fields; how an alert or a run looks inside is its own module's.
Invariant: each of those routes is here, and a test holds real answers to it.
"""

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
OBJECT: Schema = {"type": "object"}
OBJECTS: Schema = {"type": "array", "items": OBJECT}
NUMBER: Schema = {"type": "number"}
OPTIONAL_TEXT: Schema = {"type": ["string", "null"]}
OPTIONAL_NUMBER: Schema = {"type": ["integer", "null"]}


def _holds(**fields: Schema) -> Schema:
    return {"type": "object", "required": list(fields), "properties": fields}


DATASET = _holds(
    name=TEXT, version=NUMBER, id=TEXT, reference=TEXT, parent=OPTIONAL_TEXT, source_kind=TEXT, tenant=OPTIONAL_TEXT,
    num_series=NUMBER, num_readings=NUMBER, num_labels=NUMBER, created_at=NUMBER,
)  # fmt: skip
COMMAND = _holds(
    id=TEXT,
    tenant=TEXT,
    device=TEXT,
    user_id=TEXT,
    state={"enum": ["queued", "sent", "delivered", "ok", "failed", "timed_out"]},
    detail=TEXT,
    answer={"enum": ["ok", "failed", None]},
    created_at=TEXT,
    expires_at=TEXT,
)
ENTRY = _holds(id=TEXT)
RUN = _holds(id=TEXT, task=TEXT, state=TEXT, progress={"type": ["number", "null"]})
CIRCUIT = _holds(service=TEXT, state=TEXT, author=TEXT, reason=TEXT, is_told={"type": "boolean"})

SHAPES: Mapping[tuple[str, str], Schema] = {
    ("GET", "/api/v1/config"): _holds(
        user=OBJECT,
        may={"type": "object", "additionalProperties": {"type": "boolean"}},
        ws_path=TEXT,
        now=TEXT,
        session_ends_at=TEXT,
        training=OBJECT,
    ),
    ("GET", "/api/v1/status"): _holds(
        url=TEXT,
        services={"type": "object", "additionalProperties": _holds(state=TEXT)},
        readings_total=OPTIONAL_NUMBER,
        alerts_total=OPTIONAL_NUMBER,
        dead_letters_total=OPTIONAL_NUMBER,
        runs=OBJECTS,
        detector=OBJECT,
        ingest=OBJECT,
    ),
    ("GET", "/api/v1/alerts"): _holds(items=OBJECTS, next_cursor=OPTIONAL_TEXT),
    ("GET", "/api/v1/alerts/sparks"): _holds(sparks=OBJECT),
    ("GET", "/api/v1/alerts/{}"): _holds(alert=OBJECT, events=OBJECTS, evidence={"type": ["object", "array", "null"]}),
    ("POST", "/api/v1/alerts/actions"): _holds(count={"type": "integer"}, items=OBJECTS, changes=OBJECTS),
    ("GET", "/api/v1/silences"): _holds(items=OBJECTS, next_cursor={"type": ["string", "null"]}),
    ("GET", "/api/v1/silences/{}"): _holds(silence=OBJECT),
    ("POST", "/api/v1/silences"): _holds(silence=OBJECT, changed={"type": "integer"}),
    ("PATCH", "/api/v1/silences/{}"): _holds(silence=OBJECT, changed={"type": "integer"}),
    ("POST", "/api/v1/silences/{}/expire"): _holds(silence=OBJECT, changed={"type": "integer"}),
    ("GET", "/api/v1/heartbeats"): _holds(items=OBJECTS, next_cursor={"type": ["string", "null"]}),
    ("PUT", "/api/v1/heartbeats/{}/{}"): _holds(heartbeat=OBJECT),
    ("POST", "/api/v1/heartbeats/{}/{}/beat"): _holds(heartbeat=OBJECT),
    ("DELETE", "/api/v1/heartbeats/{}/{}"): _holds(heartbeat=OBJECT),
    ("GET", "/api/v1/devices"): _holds(items=OBJECTS),
    ("GET", "/api/v1/devices/{}/{}/telemetry"): _holds(tenant=TEXT, device=TEXT, metrics=OBJECT),
    ("POST", "/api/v1/commands"): COMMAND,
    ("GET", "/api/v1/commands"): _holds(items={"type": "array", "items": COMMAND}, next_cursor=OPTIONAL_TEXT),
    ("GET", "/api/v1/commands/{}"): _holds(command=COMMAND, events=OBJECTS),
    ("GET", "/api/v1/directory/{}"): _holds(items={"type": "array", "items": ENTRY}, next_cursor=OPTIONAL_TEXT),
    **{
        (method, f"/api/v1/directory/{path}"): ENTRY
        for method in ("GET", "PUT", "PATCH", "DELETE")
        for path in ("{}/{}", "{}/{}/{}")
    },
    ("GET", "/api/v1/runs"): _holds(items={"type": "array", "items": RUN}),
    ("GET", "/api/v1/runs/{}"): RUN,
    ("POST", "/api/v1/runs"): RUN,
    ("POST", "/api/v1/runs/{}/cancel"): RUN,
    ("POST", "/api/v1/drain"): _holds(clients={"type": "integer"}, over_s=NUMBER, hold_s=NUMBER),
    ("GET", "/api/v1/lanes"): _holds(lanes=OBJECTS),
    ("GET", "/api/v1/circuits"): _holds(items={"type": "array", "items": _holds(service=TEXT, state=TEXT)}),
    ("POST", "/api/v1/circuits/{}/force"): CIRCUIT,
    ("POST", "/api/v1/circuits/{}/reset"): CIRCUIT,
    ("GET", "/api/v1/labels"): _holds(items=OBJECTS, counts=OBJECT),
    ("POST", "/api/v1/labels/lease"): _holds(items=OBJECTS),
    ("POST", "/api/v1/labels/renew"): _holds(held={"type": "integer"}),
    ("POST", "/api/v1/labels/release"): _holds(released={"type": "integer"}),
    ("POST", "/api/v1/labels/answer"): _holds(label=OBJECT),
    ("POST", "/api/v1/labels/skip"): _holds(skipped=TEXT),
    ("GET", "/api/v1/models"): _holds(live=OBJECTS, versions=OBJECTS, trials=OBJECTS, settings=OBJECT),
    ("GET", "/api/v1/models/journal"): _holds(items=OBJECTS),
    ("GET", "/api/v1/models/of-alert/{}"): _holds(alert=OBJECT, model={"type": ["object", "null"]}),
    ("GET", "/api/v1/models/{}/{}"): _holds(model_id=TEXT, version=TEXT, aliases={"type": "array", "items": TEXT}),
    ("GET", "/api/v1/models/{}/versions/{}/report"): _holds(
        model_id=TEXT,
        dataset=OBJECT,
        held_out=OBJECT,
        notes={"type": "array", "items": TEXT},
        scorers=OBJECTS,
        comparisons=OBJECTS,
    ),
    ("POST", "/api/v1/models/{}/versions/{}/report"): RUN,
    ("POST", "/api/v1/models/promote"): _holds(alias=TEXT, model=TEXT, version=TEXT, revision=NUMBER),
    ("POST", "/api/v1/models/rollback"): _holds(alias=TEXT, model=TEXT, version=TEXT, revision=NUMBER),
    ("GET", "/api/v1/datasets"): _holds(items={"type": "array", "items": DATASET}),
    ("GET", "/api/v1/datasets/{}"): DATASET,
    ("GET", "/api/v1/notifications/dead"): _holds(items=OBJECTS, next_cursor={"type": ["string", "null"]}),
    ("POST", "/api/v1/notifications/replay"): _holds(replayed={"type": "integer"}),
    ("GET", "/api/v1/dead-letters"): _holds(items=OBJECTS, next_cursor=OPTIONAL_NUMBER),
    ("GET", "/api/v1/dead-letters/{}"): _holds(id=NUMBER, topic=TEXT, reason=TEXT, payload_base64=TEXT),
    ("POST", "/api/v1/dead-letters/replay"): _holds(items=OBJECTS, counts=OBJECT, next_cursor=OPTIONAL_NUMBER),
}
"""(method, path with ``{}`` for each parameter) -> schema of its successful answer."""
