"""The cloud as the rest of the project knows it: types, errors, words; infra/compute.py is who asks it."""
