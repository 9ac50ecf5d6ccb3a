"""What the watchdog (infra/watchdog.py) and the policy (infra/recovery.py) are made of."""
