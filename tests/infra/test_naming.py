"""Names are valid in the cloud whatever the run is called, differ where runs differ, and follow from the run alone."""

import re
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.naming import attempt_of, bucket_of, hash8, region_of, request_id, run_labels, vm_name, watchdog_name
from job.errors import UsageError

RFC1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL = re.compile(r"[a-z0-9_-]{1,63}")


@given(
    st.text(alphabet=st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1, max_size=200),
    st.integers(1, 10**7),
)
def test_every_name_of_a_run_makes_a_valid_name_of_a_vm(run: str, attempt: int) -> None:
    name = vm_name(f"gs://bucket/runs/{run}", attempt)
    assert RFC1035.fullmatch(name)
    assert attempt_of(name) == (hash8(f"gs://bucket/runs/{run}"), attempt)


def test_the_name_tells_a_person_which_run_and_attempt_it_is() -> None:
    assert re.fullmatch(r"baton-my-run-[0-9a-f]{8}-a0003", vm_name("gs://b/runs/My Run", 3))


def test_runs_of_the_same_name_in_two_buckets_have_vms_of_different_names() -> None:
    assert vm_name("gs://one/runs/sums", 1) != vm_name("gs://two/runs/sums", 1)


def test_a_trailing_slash_makes_no_other_run() -> None:
    assert vm_name("gs://b/runs/sums/", 1) == vm_name("gs://b/runs/sums", 1)
    assert request_id("gs://b/runs/sums/", 1, 5.0) == request_id("gs://b/runs/sums", 1, 5.0)


def test_a_claim_has_one_request_id_and_another_claim_another() -> None:
    one = request_id("gs://b/runs/sums", 1, 5.0)
    assert str(uuid.UUID(one)) == one == request_id("gs://b/runs/sums", 1, 5.0)
    assert one != request_id("gs://b/runs/sums", 2, 5.0)
    assert one != request_id("gs://b/runs/sums", 1, 5.5), "the same number of a run that was launched again"


def test_labels_are_valid_and_name_bucket_run_and_attempt() -> None:
    labels = run_labels("gs://b/runs/sums", 3)
    assert labels == {
        "baton": "run",
        "baton-bucket": hash8("gs://b"),
        "baton-run": hash8("gs://b/runs/sums"),
        "baton-attempt": "3",
    }
    assert all(LABEL.fullmatch(text) for pair in labels.items() for text in pair)


@pytest.mark.parametrize(
    "uri", ["file:///tmp/runs/sums", "gs://b", "gs://b/sums", "gs://b/runs/", "gs:///runs/sums", "gs://runs/sums"]
)
def test_a_run_that_no_vm_could_reach_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="VMs work for runs in Cloud Storage"):
        bucket_of(uri)


def test_the_watchdog_of_a_bucket_is_no_attempt() -> None:
    assert attempt_of(watchdog_name("gs://b")) is None
    assert RFC1035.fullmatch(watchdog_name("gs://b"))


def test_the_region_is_the_zone_without_its_letter() -> None:
    assert region_of("us-central1-a") == "us-central1"
