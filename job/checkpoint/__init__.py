"""Checkpoints: saved whole or not at all, verified before use, kept by rule."""
