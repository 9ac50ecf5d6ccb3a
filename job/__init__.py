"""What runs inside the container: one attempt at a run, from claim to result. Never imports infra."""
