"""What is left over, and deleting it."""
