"""The project itself: its services, and the bucket of the runs."""

from collections.abc import Sequence
from pathlib import Path

from infra.setup.steps import Command, Found, Step, gcloud, look
from infra.setup.wanted import Wanted
from job.errors import NeedsPerson

APIS = (
    "artifactregistry",
    "cloudbilling",
    "cloudresourcemanager",
    "compute",
    "iam",
    "iamcredentials",
    "iap",
    "oslogin",
    "secretmanager",
    "serviceusage",
    "storage",
    "sts",
)
BUILD_APIS = ("cloudbuild", "logging")
LIFECYCLE = Path(__file__).with_name("lifecycle.json")


def project_steps(wanted: Wanted) -> Sequence[Step]:
    """Services first: without them nothing else can be looked up."""
    return (_apis(wanted), _bucket(wanted))


def _apis(wanted: Wanted) -> Step:
    names = [f"{name}.googleapis.com" for name in sorted({*APIS, *(BUILD_APIS if wanted.cloud_build else ())})]

    def make(found: Found) -> Sequence[Command]:
        enabled = {one["config"]["name"] for one in found or ()}
        missing = [name for name in names if name not in enabled]
        return (gcloud("services", "enable", *missing),) if missing else ()

    kept = "something else may use them by now"
    return Step(f"{len(names)} services", look("services", "list", "--enabled"), make, lambda _: (), kept)


def _bucket(wanted: Wanted) -> Step:
    url = f"gs://{wanted.bucket}"
    create = gcloud(
        "storage",
        "buckets",
        "create",
        url,
        f"--location={wanted.region}",
        "--uniform-bucket-level-access",
        "--public-access-prevention",
        "--soft-delete-duration=0",
        f"--lifecycle-file={LIFECYCLE}",
    )

    def make(found: Found) -> Sequence[Command]:
        if found is None:
            return (create,)
        if (there := found["location"].lower()) != wanted.region:
            raise NeedsPerson(
                f"{url} is in {there}, not in {wanted.region}: each checkpoint would cost money on its way.",
                fix=f"--region {there}; or --bucket names another one.",
            )
        flags = bucket_flags(found)
        return (gcloud("storage", "buckets", "update", url, *flags),) if flags else ()

    kept = f"it holds your runs: gcloud storage rm --recursive {url}"
    where = f"bucket {url} in {wanted.region}: private, no copies of what is deleted, leftovers of uploads for a day"
    return Step(where, look("storage", "buckets", "describe", url, "--raw"), make, lambda _: (), kept)


def bucket_flags(found: Found) -> list[str]:
    """What has to be changed of a bucket, given its resource; pure. `baton doctor` reads the same."""
    access = found.get("iamConfiguration", {})
    retained = found.get("softDeletePolicy", {}).get("retentionDurationSeconds", "0")
    rules = found.get("lifecycle", {}).get("rule", [])
    wrong = {
        "--uniform-bucket-level-access": not access.get("uniformBucketLevelAccess", {}).get("enabled"),
        "--public-access-prevention": access.get("publicAccessPrevention") != "enforced",
        "--clear-soft-delete": int(retained) > 0,
        "--no-versioning": bool(found.get("versioning", {}).get("enabled")),
        f"--lifecycle-file={LIFECYCLE}": all(
            rule["action"]["type"] != "AbortIncompleteMultipartUpload" for rule in rules
        ),
    }
    return [flag for flag, is_wrong in wrong.items() if is_wrong]
