"""The agent: owns the run in the bucket for one attempt, and keeps what the trainer computed. Torch-free."""
