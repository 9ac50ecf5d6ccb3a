"""What things in the cloud are called: names follow from the run's URI and a number, so that asking twice makes one."""

import hashlib
import re
import uuid

from job.errors import UsageError

LONGEST = 63  # RFC 1035, which Compute Engine holds names and label values against
OWNER = "baton"
"""Label that says that a VM is ours, and what it is for: `run` or `watchdog`."""
OF_BUCKET, OF_RUN, OF_ATTEMPT = "baton-bucket", "baton-run", "baton-attempt"
SCHEME = "gs://"
_ATTEMPT = re.compile(rf"{OWNER}-.*-(?P<run>[0-9a-f]{{8}})-a(?P<attempt>\d{{4,}})")


def bucket_of(uri: str) -> str:
    """`gs://BUCKET` of a run's URI, gs://BUCKET/runs/NAME. Raises UsageError for one that a VM could not reach."""
    bucket, found, name = uri.rstrip("/").rpartition("/runs/")
    if not bucket.removeprefix(SCHEME).strip("/") or not bucket.startswith(SCHEME) or not found or not name:
        raise UsageError(
            f"{uri} is not gs://BUCKET/runs/NAME: VMs work for runs in Cloud Storage.",
            fix="Name the run so, or by NAME with BATON_BUCKET=gs://BUCKET.",
        )
    return bucket


def hash8(uri: str) -> str:
    """Eight hex digits that stand for a bucket or a run where its URI would not fit."""
    return hashlib.sha256(uri.rstrip("/").encode()).hexdigest()[:8]


def vm_name(run_uri: str, attempt: int) -> str:
    """The VM of an attempt: baton-RUN-HASH8-a0003, its middle cut where the whole would be too long."""
    end = f"-{hash8(run_uri)}-a{attempt:04d}"
    run = _plain(run_uri.rstrip("/").rpartition("/")[2])
    return f"{OWNER}-{run[: LONGEST - len(OWNER) - 1 - len(end)].rstrip('-') or 'run'}{end}"


def watchdog_name(bucket: str) -> str:
    """The VM that watches all runs of a bucket."""
    return f"{OWNER}-watchdog-{hash8(bucket)}"


def watchdog_account(project: str) -> str:
    """Whose rights it has."""
    return f"baton-watchdog@{project}.iam.gserviceaccount.com"


def attempt_of(name: str) -> tuple[str, int] | None:
    """(hash of the run, number) that the name of an attempt's VM holds, None for another VM's."""
    found = _ATTEMPT.fullmatch(name)
    return None if found is None else (found["run"], int(found["attempt"]))


def run_labels(run_uri: str, attempt: int) -> dict[str, str]:
    """What an attempt's VM is labelled with: watchdogs and `gc` touch nothing without it."""
    return {
        OWNER: "run",
        OF_BUCKET: hash8(bucket_of(run_uri)),
        OF_RUN: hash8(run_uri),
        OF_ATTEMPT: str(attempt),
    }


def watchdog_labels(bucket: str) -> dict[str, str]:
    """What a bucket's watchdog VM is labelled with."""
    return {OWNER: "watchdog", OF_BUCKET: hash8(bucket)}


def request_id(run_uri: str, number: int, claimed_at_s: float) -> str:
    """UUID of the insert of an attempt's VM: the cloud makes one VM of it, however often it is asked, and tells its
    operations from those on a VM of that name before: a run may have been deleted and launched again."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{run_uri.rstrip('/')}#{number}@{claimed_at_s}"))


def region_of(zone: str) -> str:
    """`us-central1` of `us-central1-a`."""
    return zone.rpartition("-")[0]


def _plain(text: str) -> str:
    """Small letters, digits and single hyphens, none at either end."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
