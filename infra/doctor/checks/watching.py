"""Whether somebody looks after the bucket's runs: without a watchdog no VM that was preempted is replaced."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from infra.cloud.answers import last_part, vm_status
from infra.cloud.types import VmStatus
from infra.compute import with_labels
from infra.doctor.finding import Finding, ok, to_do
from infra.doctor.place import Place
from infra.naming import watchdog_labels, watchdog_name
from infra.reading.runs import runs_of
from job.run.claims import Claims, read_claims
from job.run.head import Head, Status, read_head
from job.run.looked import Looked, read_looked
from job.storage import open_bucket
from job.storage.parallel import in_parallel
from job.views.progress import seconds

AT_ONCE = 16
PATIENCE_S = 300.0
"""Since it meant to look again: the longest that one waits between two looks."""


@dataclass(frozen=True)
class Watched:
    """A run, as far as it says who looks after it."""

    uri: str
    claims: Claims
    head: Head | None
    looked: Looked | None

    @property
    def needs(self) -> bool:
        """Whether VMs are to work for it."""
        newest = self.claims.newest
        over = self.head is not None and self.head.status is Status.FINISHED
        return newest is not None and newest.kind == "vm" and self.claims.want == "run" and not over


def look_at_watchdog(place: Place) -> Finding:
    """The watchdog VM, and when each run was last looked after."""
    uri = f"gs://{place.bucket}"
    project = place.project
    pages = place.google.pages(
        "compute", f"projects/{project}/aggregated/instances", {"filter": with_labels(watchdog_labels(uri))}
    )
    scoped = [one for page in pages for one in page.get("items", {}).values()]
    vms = {vm["name"]: vm for one in scoped for vm in one.get("instances", ())}
    runs = in_parallel((partial(_read, run) for run in runs_of(uri)), AT_ONCE)
    return judge_watchdog(uri, project, vms.get(watchdog_name(uri)), runs, place.now_s)


def judge_watchdog(
    uri: str, project: str, vm: Mapping[str, str] | None, runs: Sequence[Watched], now_s: float
) -> Finding:
    """By its VM and the runs' own records; pure."""
    needing = [run for run in runs if run.needs]
    watches = vm is not None and vm_status(vm["status"]) in (VmStatus.STARTING, VmStatus.RUNNING)
    who = f"{vm['name']} in {last_part(vm['zone'])}" if watches and vm is not None else "no watchdog VM"
    forgotten = [run for run in needing if is_forgotten(run.looked, now_s)]
    fix = f"baton watchdog up --bucket {uri} --project {project}"
    if forgotten:
        run = forgotten[0]
        when = "never" if run.looked is None else f"last {seconds(now_s - run.looked.at_s)} ago"
        more = f", and {len(forgotten) - 1} more" if len(forgotten) > 1 else ""
        again = f"baton watchdog down --bucket {uri} --project {project}\n{fix}" if watches else fix
        return to_do(f"{who}; looked after {when}: {run.uri}{more}", f"{again}\nbaton watchdog status")
    if needing:
        return ok(f"{who}; {len(needing)} runs were looked after as planned")
    return ok(f"{who}; no run needs one" + ("" if watches else ", and a launch starts it"))


def is_forgotten(looked: Looked | None, now_s: float) -> bool:
    """Whether nobody looked when somebody should have."""
    if looked is None:
        return True
    return now_s > (looked.at_s if looked.next_at_s is None else max(looked.at_s, looked.next_at_s)) + PATIENCE_S


def _read(uri: str) -> Watched:
    bucket = open_bucket(uri)
    return Watched(uri, read_claims(bucket), read_head(bucket), read_looked(bucket))
