"""Data sets: readings frozen as snapshots, and the windows cut from them."""
