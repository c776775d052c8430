"""Does the learning loop learn? One part a file; each says in its docstring what it measures and beside whom."""
