"""What the NOC is told when a circuit opens, closes or is forced: one message in the whole floor.

Found by name from the breaker (``names.CIRCUIT_NOTICES``). Never waits and never fails its
caller. Invariant: however many processes hear of a change, its key lets the hub take it once.
"""

from cluster import names
from cluster.circuit import CircuitState, SharedState
from realtime.messages import MessageType
from realtime.process_broadcaster import get_broadcaster
from realtime.publication import Priority

SAID = {
    CircuitState.OPEN: "calls of {service} are refused for {seconds:.0f} s",
    CircuitState.CLOSED: "calls of {service} pass again",
    CircuitState.FORCED_OPEN: "calls of {service} are refused until the circuit is reset",
    CircuitState.FORCED_CLOSED: "calls of {service} pass, whatever becomes of them, until the circuit is reset",
}


def tell_noc(service: str, state: SharedState, key: str) -> None:
    """Broadcast one change of one circuit as a ``system_alert``."""
    cause = state.cause
    decided = f"{cause.what} by {cause.author}" if cause.author else cause.what
    why = ": ".join(part for part in (decided, cause.reason) if part)
    text = SAID[state.state].format(service=service, seconds=state.remaining_s)
    refuses = state.state in {CircuitState.OPEN, CircuitState.FORCED_OPEN}
    get_broadcaster().publish(
        names.CHANNEL_NOC,
        MessageType.SYSTEM_ALERT,
        {"component": "circuit", "message": f"{text} ({why})", "blocked": {service: why} if refuses else {}},
        Priority.HIGH if refuses else Priority.NORMAL,
        key=key,
    )
