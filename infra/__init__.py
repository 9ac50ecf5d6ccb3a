"""What runs outside the container: the laptop or the watchdog. Never imports torch."""
