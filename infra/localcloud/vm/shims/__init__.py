"""The only substitutes on a local VM: what it finds on its PATH as docker, systemctl and nvidia-smi.

Each is one small file of the standard library alone. What it knows of the machine stands in hardware.json beside the
VM's disk, written by the local cloud.
"""
