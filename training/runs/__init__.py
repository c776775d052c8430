"""Runs: from an order to a model that is live."""
