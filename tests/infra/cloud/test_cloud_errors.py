"""Every refusal of the cloud, in an HTTP error or an operation, becomes the kind that says what to do about it."""

import pytest

from infra.cloud.errors import SAYS_MOST, STOCKOUT, Said, classify, classify_all
from infra.cloud.types import TroubleKind

MACHINE = "The resource 'projects/p/zones/us-east5-a/machineTypes/g2-standard-4' was not found"
VM = "The resource 'projects/p/zones/us-east5-a/instances/baton-x' was not found"
QUOTA = "Quota 'PREEMPTIBLE_NVIDIA_L4_GPUS' exceeded.  Limit: 1.0 in region us-central1."


def kind(code: str, message: str = "", status: int | None = None, *, creating: bool = True) -> TroubleKind:
    return classify(Said(code, message, status), creating=creating).kind


@pytest.mark.parametrize("code", STOCKOUT)
def test_no_capacity_is_a_stockout_by_whatever_code(code: str) -> None:
    assert kind(code) is TroubleKind.STOCKOUT


def test_a_stockout_that_only_the_words_of_a_503_tell_is_one() -> None:
    assert kind("backendError", "ZONE_RESOURCE_POOL_EXHAUSTED: try later", 503) is TroubleKind.UNAVAILABLE
    assert kind("", "ZONE_RESOURCE_POOL_EXHAUSTED: try later", 503) is TroubleKind.STOCKOUT


def test_a_quota_tells_metric_region_and_limit() -> None:
    trouble = classify(Said("quotaExceeded", QUOTA, 403), creating=True)
    assert trouble.kind is TroubleKind.QUOTA
    assert (trouble.metric, trouble.region, trouble.limit) == ("PREEMPTIBLE_NVIDIA_L4_GPUS", "us-central1", 1.0)


def test_details_of_a_quota_count_more_than_its_words() -> None:
    said = Said(
        "QUOTA_EXCEEDED",
        "Quota 'NVIDIA_H100_GPUS' exceeded.  Limit: 1.0 in region us-east4.",
        metric="compute.googleapis.com/preemptible_nvidia_h100_gpus",
        limit=2.0,
        dimensions={"region": "us-east5"},
    )
    trouble = classify(said, creating=True)
    assert trouble.metric == "PREEMPTIBLE_NVIDIA_H100_GPUS"
    assert (trouble.region, trouble.limit) == ("us-east5", 2.0)


@pytest.mark.parametrize("metric", ["GPUS_ALL_REGIONS", "CPUS_ALL_REGIONS"])
def test_a_quota_of_the_project_is_helped_by_no_region(metric: str) -> None:
    trouble = classify(Said("QUOTA_EXCEEDED", f"Quota '{metric}' exceeded.  Limit: 0.0 globally."), creating=True)
    assert trouble.kind is TroubleKind.QUOTA_EVERYWHERE
    assert (trouble.metric, trouble.region, trouble.limit) == (metric, None, 0.0)


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("UNSUPPORTED_OPERATION", None, TroubleKind.PREEMPTED),
        ("RESOURCE_NOT_READY", None, TroubleKind.NOT_READY),
        ("resourceNotReady", 400, TroubleKind.NOT_READY),
        ("resourceInUseByAnotherResource", 400, TroubleKind.NOT_READY),
        ("RESOURCE_OPERATION_RATE_EXCEEDED", None, TroubleKind.RATE_LIMIT),
        ("rateLimitExceeded", 403, TroubleKind.RATE_LIMIT),
        ("rateLimitExceeded", 429, TroubleKind.RATE_LIMIT),
        ("", 429, TroubleKind.RATE_LIMIT),
        ("alreadyExists", 409, TroubleKind.TAKEN),
        ("forbidden", 403, TroubleKind.FORBIDDEN),
        ("PERMISSION_DENIED", None, TroubleKind.FORBIDDEN),
        ("accessNotConfigured", 403, TroubleKind.FORBIDDEN),
        ("authError", 401, TroubleKind.CREDENTIALS),
        ("", 401, TroubleKind.CREDENTIALS),
        ("invalid", 400, TroubleKind.INVALID),
        ("INVALID_FIELD_VALUE", None, TroubleKind.INVALID),
        ("badRequest", 400, TroubleKind.INVALID),
        ("conditionNotMet", 412, TroubleKind.INVALID),
        ("backendError", 503, TroubleKind.UNAVAILABLE),
        ("", 500, TroubleKind.UNAVAILABLE),
        ("", 502, TroubleKind.UNAVAILABLE),
        ("", 408, TroubleKind.UNAVAILABLE),
        ("SOMETHING_NEW", None, TroubleKind.UNAVAILABLE),
    ],
)
def test_codes_and_statuses(code: str, status: int | None, expected: TroubleKind) -> None:
    assert kind(code, "words", status) is expected


def test_a_machine_that_the_zone_does_not_have_is_another_zones_business() -> None:
    assert kind("notFound", MACHINE, 404) is TroubleKind.UNSUPPORTED
    assert kind("RESOURCE_NOT_FOUND", MACHINE) is TroubleKind.UNSUPPORTED
    assert kind("invalid", "Machine type with name 'a3' does not exist in zone 'us-east5-a'.", 400) is (
        TroubleKind.UNSUPPORTED
    )


def test_an_image_that_is_not_found_never_is() -> None:
    image = "The resource 'projects/p/global/images/family/x' was not found"
    assert kind("notFound", image, 404) is TroubleKind.INVALID


def test_a_vm_that_is_looked_for_and_not_there_is_not_found() -> None:
    assert kind("notFound", VM, 404, creating=False) is TroubleKind.NOT_FOUND


def test_of_several_errors_the_one_that_needs_a_person_counts() -> None:
    found = classify_all([Said("ZONE_RESOURCE_POOL_EXHAUSTED", ""), Said("QUOTA_EXCEEDED", QUOTA)], creating=True)
    assert found is not None
    assert found.kind is TroubleKind.QUOTA
    assert classify_all([], creating=True) is None


def test_every_kind_of_trouble_is_ranked() -> None:
    assert sorted(SAYS_MOST) == sorted(TroubleKind)
