"""From a command line to a VM that runs."""
