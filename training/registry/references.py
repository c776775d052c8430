"""A model version by what people call it: a type, an alias, a version.

Reads the registry and the aliases, changes nothing. Invariant: what is returned exists now.
"""

from sqlalchemy import Engine

from cluster.store import read_transaction
from ingest.live_models import CHALLENGER, CHAMPION, PREVIOUS, read_live_model
from training.errors import ModelVersionNotFoundError
from training.registry.manifest import Manifest
from training.registry.versions import ModelRegistry, read_manifest

NEWEST = "(newest)"


def find_version(registry: ModelRegistry, engine: Engine, reference: str) -> Manifest:
    """Return the version that a reference means.

    Args:
        registry: where versions are.
        engine: the floor's SQL store, where aliases are.
        reference: ``TYPE`` for its newest version, ``TYPE:VERSION`` or ``TYPE@VERSION``; for the version also
            ``champion``, ``challenger`` or ``previous``.

    Raises:
        ModelVersionNotFoundError: there is none.
        ModelFileError: its manifest cannot be used.
    """
    model_type, _, version = reference.replace("@", ":", 1).partition(":")
    if version in {CHAMPION, CHALLENGER, PREVIOUS}:
        with read_transaction(engine) as connection:
            live = read_live_model(connection, version)
        if live is None or live.scorer != model_type:
            raise ModelVersionNotFoundError(model_type, version)
        return read_manifest(live.uri)
    try:
        known = registry.versions(model_type)
    except ValueError:  # it cannot name a model type, so it names none
        known = []
    if not known:
        raise ModelVersionNotFoundError(model_type, version or NEWEST)
    return registry.manifest(model_type, version or known[-1])
