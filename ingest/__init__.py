"""Devices in and out: MQTT, telemetry, detection, alerts."""
