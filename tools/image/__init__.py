"""The image: which engine builds it, from which base, how it is pushed, and what is in its layers.

`python -m tools.image --help`. Pure functions decide and are tested without an engine; only run.py starts one.
"""
