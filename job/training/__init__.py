"""The trainer: everything that imports torch. It never touches the bucket."""
