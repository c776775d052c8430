"""Metrics of one process: one registry, and every metric that more than one folder names.

Folders declare further metrics beside their code on the same ``REGISTRY``. Labels are
closed sets (a channel *kind*, a lane, a reason), never an id. How the processes of a
floor are summed stands in ``metrics_actor.py``.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry(auto_describe=True)

websocket_broadcast_success = Counter(
    "websocket_broadcast_success", "Broadcasts that the hub confirmed.", ["kind", "priority"], registry=REGISTRY
)
websocket_broadcast_failure = Counter(
    "websocket_broadcast_failure", "Broadcasts dropped or refused, by reason.", ["kind", "reason"], registry=REGISTRY
)
websocket_broadcast_duration = Histogram(
    "websocket_broadcast_duration_seconds",
    "From the broadcast call to the hub's confirmation.",
    ["kind"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
    registry=REGISTRY,
)
ml_model_trained = Counter("ml_model_trained", "Trainings that ended with a model.", ["model_type"], registry=REGISTRY)
ml_training_duration = Histogram(
    "ml_training_duration_seconds",
    "Wall time of a training run, start to end.",
    ["model_type"],
    buckets=(1, 5, 15, 30, 60, 120, 300, 600, 1800, 3600, 10800, 14400),
    registry=REGISTRY,
)
active_learning_samples_identified = Counter(
    "active_learning_samples_identified", "Samples chosen to be labelled.", ["strategy"], registry=REGISTRY
)
dataset_samples_labeled = Counter(
    "dataset_samples_labeled", "Labels given, by strategy.", ["strategy"], registry=REGISTRY
)
external_service_circuit_open = Counter(
    "external_service_circuit_open", "Times a circuit breaker opened.", ["service"], registry=REGISTRY
)
external_service_circuit_closed = Counter(
    "external_service_circuit_closed", "Times a circuit breaker closed again.", ["service"], registry=REGISTRY
)
external_service_call_timeout = Counter(
    "external_service_call_timeout", "Guarded calls that ran out of time.", ["service"], registry=REGISTRY
)
external_service_call_failure = Counter(
    "external_service_call_failure", "Guarded calls that failed and counted.", ["service"], registry=REGISTRY
)

external_service_rejected = Counter(
    "watchfloor_circuit_rejected", "Calls that an open circuit refused.", ["service"], registry=REGISTRY
)
circuit_not_closed = Gauge(
    "watchfloor_circuit_not_closed",
    "Processes in which the circuit of a service is not closed.",
    ["service"],
    registry=REGISTRY,
)
task_duration = Histogram(
    "watchfloor_task_duration_seconds",
    "Wall time of one attempt of a task.",
    ["lane", "outcome"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200),
    registry=REGISTRY,
)
task_retries = Counter("watchfloor_task_retries", "Attempts after the first one.", ["lane"], registry=REGISTRY)
runs_ended = Counter("watchfloor_runs_ended", "Runs that reached their end.", ["lane", "state"], registry=REGISTRY)
lane_running = Gauge("watchfloor_lane_running", "Runs that hold a slot of the lane.", ["lane"], registry=REGISTRY)
lane_queued = Gauge("watchfloor_lane_queued", "Runs that wait for a slot of the lane.", ["lane"], registry=REGISTRY)
process_resident_memory = Gauge(
    "watchfloor_process_resident_memory_bytes",
    "Resident memory, summed over the processes of one kind.",
    ["process"],
    registry=REGISTRY,
)
