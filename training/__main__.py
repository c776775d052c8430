"""``python -m training``: train a model, and look at runs and models.

``train`` is the driver of a run when the run queue or ``ray job submit`` started it;
called from a shell it puts a run into the queue and follows it. Invariant: nothing of
ours is imported before it is known that no folder of the working directory hides it.
"""

import sys

from training.shadow import check_shadowing

if __name__ == "__main__":
    _hidden = check_shadowing()
    if _hidden is not None:
        print(f"error: {_hidden}", file=sys.stderr)
        sys.exit(2)
    from training.cli import main

    main()
