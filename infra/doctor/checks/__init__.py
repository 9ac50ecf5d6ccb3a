"""The checks: in each file readers, and the pure functions that judge what they have read."""
