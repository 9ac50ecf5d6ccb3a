"""A run read from outside, while it goes on and afterwards."""
