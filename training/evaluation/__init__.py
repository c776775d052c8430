"""How good a model is, held against what happened."""
