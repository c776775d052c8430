"""What every process of a floor shares; knows nothing of alerts, channels or models."""
