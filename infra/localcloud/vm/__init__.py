"""VMs on this machine: process trees with a disk of their own, and a metadata server for each."""

from infra.localcloud.vm.machines import Machines

__all__ = ["Machines"]
