"""The broadcast path: channels, hub, journal and broadcaster."""
