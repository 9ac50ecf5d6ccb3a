"""The run's durable state in its bucket: one writer per object."""
