"""VMs on this machine: process trees with a disk of their own, and a metadata server for each (machines.py)."""
