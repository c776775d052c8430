"""Alerts: model, life cycle, engine and relay."""
