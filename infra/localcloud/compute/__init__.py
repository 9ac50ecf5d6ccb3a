"""A Compute Engine on loopback, whose VMs are process trees and whose troubles come on demand."""

from infra.localcloud.compute.server import ComputeServer, start

__all__ = ["ComputeServer", "start"]
