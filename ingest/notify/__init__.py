"""What leaves the floor: alerts to an Alertmanager, and a signed webhook, both through the breaker."""
