"""Compute Engine, asked over REST: the only file that knows google.cloud.compute, which is imported when first asked.

It answers in the types of infra/cloud/types.py and raises CloudError, nothing else. No call waits for an operation but
`wait`, and none is tried again here: whoever decides looks again.
"""

import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

from infra.cloud.answers import advice_of, disk_of, http_trouble, last_part, operation_of, vm_of
from infra.cloud.types import (
    Advice,
    CloudError,
    Disk,
    Operation,
    OperationKind,
    Trouble,
    TroubleKind,
    Vm,
    VmList,
    VmOrder,
)
from infra.cloud.vm_request import SCOPE, SERVICE, advice_request, image_path, insert_request
from job.errors import UsageError

OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"
NO_CREDENTIALS = "CLOUDSDK_AUTH_DISABLE_CREDENTIALS"
ANSWER_S = 30.0  # for one reply; nothing is known of what was asked when it is over
ADVICE_S = 5.0  # a plan does without it
WAIT_S = 110.0  # the service answers `wait` after at most two minutes, done or not
PAGE = 500

_SAFE = re.compile(r"[a-z0-9_-]+")


class ComputeEngine:
    """The Cloud of infra/cloud/types.py. Makes its connections when it is first asked."""

    def __init__(self, project: str, environment: Mapping[str, str] | None = None) -> None:
        self.project = project
        self._environment = os.environ if environment is None else environment
        self.endpoint = endpoint(self._environment.get(OVERRIDE, ""))
        """Where the service is."""

    def list_vms(self, labels: Mapping[str, str]) -> VmList:
        """All VMs with these labels, whatever their zone, by one aggregated list (as many pages as it has)."""
        wanted = with_labels(labels)
        vms, unreachable = [], set()
        with _in_our_words():
            pager = self._instances.aggregated_list(
                request={"project": self.project, "filter": wanted, "max_results": PAGE}, retry=None, timeout=ANSWER_S
            )
            for page in pager.pages:
                unreachable |= {last_part(place) for place in page.unreachables}
                for place, scoped in page.items.items():
                    if scoped.warning.code == "UNREACHABLE":
                        unreachable.add(last_part(place))
                    vms += [vm_of(instance) for instance in scoped.instances]
        return VmList(tuple(vms), frozenset(unreachable))

    def get_vm(self, zone: str, name: str) -> Vm | None:
        """One VM; None when the cloud says that there is none of that name in that zone."""
        try:
            with _in_our_words():
                request = {"project": self.project, "zone": zone, "instance": name}
                return vm_of(self._instances.get(request=request, retry=None, timeout=ANSWER_S))
        except CloudError as error:
            if _is_gone(error.trouble, name):
                return None
            raise

    def operations(self, zone: str, name: str, instance_id: str | None = None) -> tuple[Operation, ...]:
        """What was done to the VM of that name, oldest first, also when it is gone. With `instance_id`: to that one
        only, the platform's own doings included."""
        of_name = f'targetLink eq ".*/instances/{_safe(name)}"'
        wanted = of_name if instance_id is None else f"targetId = {int(instance_id)}"
        found = []
        with _in_our_words():
            request = {"project": self.project, "zone": zone, "filter": wanted, "max_results": PAGE}
            for operation in self._operations.list(request=request, retry=None, timeout=ANSWER_S):
                if instance_id is not None or last_part(operation.target_link) == name:
                    found.append(operation_of(operation))
        return tuple(sorted(found, key=lambda one: one.at_s))

    def insert(self, order: VmOrder) -> Operation:
        """Asks for a VM. The same request_id gives the same operation; a VM of that name that carries the order's
        labels is adopted: its operation is done. Raises CloudError with TAKEN for one that does not."""
        asked = insert_request(order, self.project)
        try:
            with _in_our_words(creating=True):
                compute = _compute()
                request = compute.InsertInstanceRequest(
                    project=asked.project,
                    zone=asked.zone,
                    request_id=asked.request_id,
                    instance_resource=compute.Instance.from_json(json.dumps(asked.body)),
                )
                return operation_of(self._instances.insert_unary(request=request, retry=None, timeout=ANSWER_S))
        except CloudError as error:
            if error.trouble.kind is not TroubleKind.TAKEN:
                raise
            return self._adopt(order, error)

    def delete(self, zone: str, name: str) -> None:
        """Asks for the end of a VM and its disks; one that is gone, or on its way, is no error."""
        with _unless_gone(name), _in_our_words():
            request = {"project": self.project, "zone": zone, "instance": name}
            self._instances.delete_unary(request=request, retry=None, timeout=ANSWER_S)

    def stop(self, zone: str, name: str) -> None:
        """Asks a VM to stop, by ACPI first; one that is gone or has stopped is no error."""
        with _unless_gone(name), _in_our_words():
            request = {"project": self.project, "zone": zone, "instance": name}
            self._instances.stop_unary(request=request, retry=None, timeout=ANSWER_S)

    def wait(self, zone: str, operation: str, timeout_s: float) -> Operation:
        """The operation once it is done, or as it is when the time is over: the service ends its own waits early."""
        until_s = time.monotonic() + timeout_s
        while True:
            left_s = max(1.0, until_s - time.monotonic())
            with _in_our_words():
                request = {"project": self.project, "zone": zone, "operation": operation}
                found = self._operations.wait(request=request, retry=None, timeout=min(WAIT_S, left_s) + ANSWER_S)
            seen = operation_of(found)
            if seen.done or time.monotonic() >= until_s:
                return seen

    def dated_image(self, boot_image: str) -> str:
        """The image that `project/family` means today, by its full name; a full name as it is."""
        path = image_path(boot_image)
        if "/family/" not in path:
            return path
        project, family = path.split("/")[1], last_part(path)
        with _in_our_words():
            request = {"project": project, "family": family}
            image = self._images.get_from_family(request=request, retry=None, timeout=ANSWER_S)
        return f"projects/{project}/global/images/{image.name}"

    def preempt(self, zone: str, name: str) -> None:
        """Has the platform treat a spot VM as at a preemption. Returns when that is asked for."""
        with _in_our_words():
            request = {"project": self.project, "zone": zone, "instance": name}
            self._instances.simulate_maintenance_event_unary(request=request, retry=None, timeout=ANSWER_S)

    def list_disks(self, labels: Mapping[str, str]) -> tuple[Disk, ...]:
        """All disks with these labels, attached or not, whatever their zone."""
        request = {"project": self.project, "filter": with_labels(labels), "max_results": PAGE}
        found: list[Disk] = []
        with _in_our_words():
            for _, scoped in self._disks.aggregated_list(request=request, retry=None, timeout=ANSWER_S):
                found += [disk_of(disk) for disk in scoped.disks]
        return tuple(found)

    def delete_disk(self, zone: str, name: str) -> None:
        """Asks for the end of a disk; one that is gone is no error. One that is attached is refused."""
        try:
            with _in_our_words():
                request = {"project": self.project, "zone": zone, "disk": name}
                self._disks.delete_unary(request=request, retry=None, timeout=ANSWER_S)
        except CloudError as error:
            if error.trouble.kind is not TroubleKind.NOT_FOUND or f"/disks/{name}" not in error.trouble.message:
                raise

    def advice(self, zone: str, machine_type: str) -> Advice | None:
        """How likely a spot VM is to be had there now, and to last; None where it does not say."""
        with _in_our_words():
            request = {"project": self.project, **advice_request(zone, machine_type)}
            return advice_of(self._advice.capacity(request=request, retry=None, timeout=ADVICE_S))

    def _adopt(self, order: VmOrder, error: CloudError) -> Operation:
        """The insert of the VM that has the name already, when it is this order's. Raises CloudError."""
        vm = self.get_vm(order.zone, order.name)
        if vm is None:  # between the two replies it went
            said = error.trouble
            raise CloudError(Trouble(TroubleKind.NOT_READY, said.code, f"{order.name} is going away: {said.message}"))
        if any(vm.labels.get(key) != value for key, value in order.labels.items()):
            raise error
        return Operation(
            name="",
            kind=OperationKind.INSERT,
            done=True,
            user="",
            instance_id=vm.instance_id,
            at_s=vm.created_s,
            ended_s=vm.created_s,
            request_id=order.request_id,
        )

    @cached_property
    def _instances(self) -> Any:
        return _compute().InstancesClient(credentials=self._credentials, client_options=self._options)

    @cached_property
    def _operations(self) -> Any:
        # A client of its own: what `insert(...).result()` makes by itself forgets the endpoint.
        return _compute().ZoneOperationsClient(credentials=self._credentials, client_options=self._options)

    @cached_property
    def _disks(self) -> Any:
        return _compute().DisksClient(credentials=self._credentials, client_options=self._options)

    @cached_property
    def _advice(self) -> Any:
        return _compute().AdviceClient(credentials=self._credentials, client_options=self._options)

    @cached_property
    def _images(self) -> Any:
        return _compute().ImagesClient(credentials=self._credentials, client_options=self._options)

    @cached_property
    def _credentials(self) -> Any:
        return find_credentials(self.endpoint, self._environment)

    @property
    def _options(self) -> dict[str, str]:
        return {"api_endpoint": self.endpoint}


def endpoint(override: str) -> str:
    """Where the service is, by the value of gcloud's own variable: scheme, host and port. Raises UsageError."""
    if not override:
        return SERVICE
    parts = urlsplit(override)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") not in ("", "compute/v1"):
        raise UsageError(
            f"{OVERRIDE}={override!r} is not where Compute Engine v1 could be.",
            fix="Set it to something like http://127.0.0.1:9020/compute/v1/, or unset it to use Google Cloud.",
        )
    return f"{parts.scheme}://{parts.netloc}"


def find_credentials(at: str, environment: Mapping[str, str]) -> Any:
    """Whose rights are used, said explicitly. Raises what google-auth does when there are none.

    Anonymous only where gcloud's own variable says so. A person's own login is shown to Google only: elsewhere count
    those that the environment names.
    """
    import google.auth
    from google.auth.compute_engine import Credentials as MachineCredentials
    from google.auth.credentials import AnonymousCredentials

    if environment.get(NO_CREDENTIALS, "").lower() in ("1", "true", "yes"):
        return AnonymousCredentials()
    own = at != SERVICE and urlsplit(at).scheme == "http"
    if own and environment.get("GCE_METADATA_HOST") and not environment.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return MachineCredentials(scopes=[SCOPE])
    if own and not environment.get("GOOGLE_APPLICATION_CREDENTIALS"):
        raise google.auth.exceptions.DefaultCredentialsError(
            f"no credentials for {at}: set {NO_CREDENTIALS}=true, or GOOGLE_APPLICATION_CREDENTIALS"
        )
    return google.auth.default(scopes=[SCOPE])[0]


def _compute() -> Any:
    from google.cloud import compute_v1  # 148 MB that no other command should pay

    return compute_v1


@contextmanager
def _in_our_words(*, creating: bool = False) -> Iterator[None]:
    """Turns every failure of the client, its connection and its credentials into a CloudError."""
    import requests
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth import exceptions

    try:
        yield
    except GoogleAPICallError as error:
        raise CloudError(http_trouble(error, creating=creating)) from error
    except (exceptions.RefreshError, exceptions.DefaultCredentialsError) as error:
        raise CloudError(Trouble(TroubleKind.CREDENTIALS, type(error).__name__, _first(error))) from error
    except (exceptions.TransportError, requests.RequestException, RetryError, OSError) as error:
        code = "connection refused" if "refused" in str(error).lower() else type(error).__name__
        raise CloudError(Trouble(TroubleKind.UNAVAILABLE, code, _first(error))) from error


@contextmanager
def _unless_gone(name: str) -> Iterator[None]:
    try:
        yield
    except CloudError as error:
        if not _is_gone(error.trouble, name) and error.trouble.kind is not TroubleKind.NOT_READY:
            raise


def _is_gone(trouble: Trouble, name: str) -> bool:
    """Whether the 404 is of that VM: a project or zone that is not found says nothing about it."""
    return trouble.kind is TroubleKind.NOT_FOUND and f"/instances/{name}" in trouble.message


def _first(error: BaseException) -> str:
    """The words of an error, in one line."""
    return " ".join(str(error).split())[:400]


def with_labels(labels: Mapping[str, str]) -> str:
    """The filter for what carries all of these labels."""
    return " AND ".join(f'(labels.{_safe(key)} = "{_safe(value)}")' for key, value in labels.items())


def _safe(text: str) -> str:
    """A name or label value that may stand in a filter: ours have nothing else in them."""
    if _SAFE.fullmatch(text) is None:
        raise ValueError(f"{text!r} cannot stand in a filter")
    return text
