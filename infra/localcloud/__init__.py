"""The parts of Google Cloud that Baton uses, on loopback: for tests, and for a try without an account."""
