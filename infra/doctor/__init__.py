"""Whether a project can run what it is meant to: each check reads, says what it finds, and how to mend that."""
