"""One file per claim: each measures ours beside the alternative, prints a table, and JSON with --json FILE."""
