"""What a request asks for. Pure."""

import re
from dataclasses import dataclass
from urllib.parse import unquote

PREFIX = re.compile(r"/compute/(v1|beta)")
PATTERNS: tuple[tuple[str, str, str], ...] = (
    ("GET", "projects/{project}", "project_get"),
    ("GET", "projects/{project}/zones", "zones_list"),
    ("GET", "projects/{project}/zones/{zone}", "zone_get"),
    ("GET", "projects/{project}/regions", "regions_list"),
    ("GET", "projects/{project}/regions/{region}", "region_get"),
    ("POST", "projects/{project}/regions/{region}/advice/capacity", "advice_capacity"),
    ("GET", "projects/{project}/zones/{zone}/machineTypes", "machine_types_list"),
    ("GET", "projects/{project}/zones/{zone}/machineTypes/{name}", "machine_type_get"),
    ("GET", "projects/{project}/aggregated/machineTypes", "machine_types_aggregated"),
    ("GET", "projects/{project}/zones/{zone}/acceleratorTypes", "accelerator_types_list"),
    ("GET", "projects/{project}/zones/{zone}/acceleratorTypes/{name}", "accelerator_type_get"),
    ("GET", "projects/{project}/aggregated/acceleratorTypes", "accelerator_types_aggregated"),
    ("GET", "projects/{project}/global/images/family/{name}", "image_from_family"),
    ("GET", "projects/{project}/global/images/{name}", "image_get"),
    ("GET", "projects/{project}/zones/{zone}/imageFamilyViews/{name}", "image_family_view"),
    ("GET", "projects/{project}/aggregated/instances", "aggregated_list"),
    ("GET", "projects/{project}/zones/{zone}/instances", "list"),
    ("POST", "projects/{project}/zones/{zone}/instances", "insert"),
    ("GET", "projects/{project}/zones/{zone}/instances/{name}", "get"),
    ("DELETE", "projects/{project}/zones/{zone}/instances/{name}", "delete"),
    ("POST", "projects/{project}/zones/{zone}/instances/{name}/stop", "stop"),
    ("POST", "projects/{project}/zones/{zone}/instances/{name}/start", "start"),
    ("POST", "projects/{project}/zones/{zone}/instances/{name}/simulateMaintenanceEvent", "simulate_maintenance"),
    ("GET", "projects/{project}/zones/{zone}/instances/{name}/serialPort", "serial_port"),
    ("GET", "projects/{project}/zones/{zone}/disks", "disks_list"),
    ("GET", "projects/{project}/aggregated/disks", "disks_aggregated"),
    ("GET", "projects/{project}/zones/{zone}/disks/{name}", "disk_get"),
    ("DELETE", "projects/{project}/zones/{zone}/disks/{name}", "disk_delete"),
    ("GET", "projects/{project}/aggregated/operations", "operations_aggregated"),
    ("GET", "projects/{project}/zones/{zone}/operations", "operations_list"),
    ("GET", "projects/{project}/zones/{zone}/operations/{name}", "operation_get"),
    ("POST", "projects/{project}/zones/{zone}/operations/{name}/wait", "operation_wait"),
)
PERMISSIONS = {
    "insert": "compute.instances.create",
    "get": "compute.instances.get",
    "list": "compute.instances.list",
    "aggregated_list": "compute.instances.list",
    "delete": "compute.instances.delete",
    "stop": "compute.instances.stop",
    "start": "compute.instances.start",
    "simulate_maintenance": "compute.instances.simulateMaintenanceEvent",
    "serial_port": "compute.instances.getSerialPortOutput",
    "operation_get": "compute.zoneOperations.get",
    "operation_wait": "compute.zoneOperations.get",
    "operations_list": "compute.zoneOperations.list",
    "operations_aggregated": "compute.globalOperations.list",
    "project_get": "compute.projects.get",
    "zones_list": "compute.zones.list",
    "zone_get": "compute.zones.get",
    "regions_list": "compute.regions.list",
    "region_get": "compute.regions.get",
    "advice_capacity": "compute.advice.capacity",
    "disks_list": "compute.disks.list",
    "disks_aggregated": "compute.disks.list",
    "disk_get": "compute.disks.get",
    "disk_delete": "compute.disks.delete",
}
COMPILED = tuple(
    (method, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", pattern)), call) for method, pattern, call in PATTERNS
)


@dataclass(frozen=True)
class Route:
    """One operation of the API and what it is about."""

    call: str
    project: str = ""
    zone: str = ""
    region: str = ""
    name: str = ""

    @property
    def permission(self) -> str:
        """The right that it takes."""
        return PERMISSIONS.get(self.call, f"compute.{self.call}")

    @property
    def path(self) -> str:
        """The VM, as error messages name it."""
        return f"projects/{self.project}/zones/{self.zone}/instances/{self.name}"


def route(method: str, path: str) -> Route | None:
    """What the request asks for; None where nothing here answers it."""
    rest = PREFIX.sub("", path, count=1).strip("/")
    for wanted, pattern, call in COMPILED:
        match = pattern.fullmatch(rest)
        if wanted == method and match is not None:
            return Route(call, **{key: unquote(value) for key, value in match.groupdict().items()})
    return None
