"""What a killed Ray Train controller leaves behind, and how the next one gets a clean start.

Ray frees a placement group when its maker and the maker's driver are both dead; ours lives on,
so the lane's token would stay with workers that nobody steers. And the list of checkpoints is
rewritten in place, so a kill may leave half of it, which no controller would read again.
Invariants: only what actors of this driver made is removed, and no checkpoint is.
"""

import json
import logging
from typing import Any

import ray
from ray._private.state import state as ray_state
from ray._raylet import ActorID, PlacementGroupID
from ray.core.generated.gcs_pb2 import PlacementGroupTableData  # type: ignore[attr-defined]
from ray.train.v2._internal.constants import CHECKPOINT_MANAGER_SNAPSHOT_FILENAME
from ray.util.placement_group import PlacementGroup, remove_placement_group

from training.registry.storage import Storage
from training.runs.retention import RUNS

logger = logging.getLogger(__name__)


def free_groups() -> list[str]:
    """Remove the placement groups that actors of this driver made, which are those of its run's controllers.

    Ray ends what still runs in them.

    Returns:
        Ids of the groups, in hex.
    """
    groups = groups_of(ray.get_runtime_context().get_job_id())
    for group in groups:
        remove_placement_group(PlacementGroup(PlacementGroupID.from_hex(group)))
    return groups


def groups_of(job_id: str) -> list[str]:
    """Return the ids of the placement groups that actors of a driver made and that are not removed, in hex."""
    # Ray's state API says it too, but asks the dashboard, which may be away just now; the other public table does not.
    accessor = ray_state._connect_and_get_accessor()
    rows: list[Any] = [PlacementGroupTableData.FromString(row) for row in accessor.get_placement_group_table()]
    return [
        row.placement_group_id.hex()
        for row in rows
        if row.creator_job_id.hex() == job_id
        and row.creator_actor_id != ActorID.nil().binary()
        and row.state != PlacementGroupTableData.REMOVED
    ]


def drop_torn_list(storage: Storage, run_id: str) -> bool:
    """Delete a run's list of checkpoints when it was not written to its end, and tell whether it was so.

    The workers then look for the newest checkpoint themselves.
    """
    path = f"{RUNS}/{run_id}/{CHECKPOINT_MANAGER_SNAPSHOT_FILENAME}"
    try:
        json.loads(storage.read(path))
    except FileNotFoundError:
        return False
    except ValueError:
        logger.warning("run %s: its list of checkpoints is torn", run_id)
        storage.delete(path)
        return True
    return False
