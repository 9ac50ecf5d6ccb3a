"""What a person is told of the cloud's trouble names the thing, and a next step that can be taken as it stands."""

import pytest

from infra.cloud.types import Trouble, TroubleKind
from infra.cloud.words import LOGIN, cloud_problem
from job.errors import NeedsPerson, Transient

HERE = "http://127.0.0.1:9020"


def test_a_quota_names_metric_region_limit_and_where_to_ask() -> None:
    trouble = Trouble(TroubleKind.QUOTA, "QUOTA_EXCEEDED", "over", "NVIDIA_L4_GPUS", "us-central1", 1.0)
    problem = cloud_problem(trouble, "p")
    assert isinstance(problem, NeedsPerson)
    assert "NVIDIA_L4_GPUS in us-central1 does not allow this VM: the limit is 1" in problem.what
    assert "https://console.cloud.google.com/iam-admin/quotas?project=p, filter NVIDIA_L4_GPUS" in problem.fix


@pytest.mark.parametrize(
    ("message", "fix"),
    [
        ("Required 'compute.instances.create' permission for 'x'", "--role roles/compute.instanceAdmin.v1"),
        ("Required 'iam.serviceAccounts.actAs' permission for 'x'", "--role roles/iam.serviceAccountUser"),
        ("Compute Engine API has not been used in project 1 before", "gcloud services enable compute.googleapis.com"),
        ("no word of which", "--role roles/compute.instanceAdmin.v1"),
    ],
)
def test_a_missing_right_names_role_and_command(message: str, fix: str) -> None:
    assert fix in cloud_problem(Trouble(TroubleKind.FORBIDDEN, "forbidden", message), "p").fix


def test_without_credentials_a_person_signs_in_or_takes_those_of_the_local_cloud() -> None:
    trouble = Trouble(TroubleKind.CREDENTIALS, "RefreshError", "expired")
    assert LOGIN in cloud_problem(trouble, "p").fix
    assert "baton local env" in cloud_problem(trouble, "p", HERE).fix


def test_a_local_cloud_that_is_not_up_is_told_from_a_service_that_is_down() -> None:
    refused = Trouble(TroubleKind.UNAVAILABLE, "connection refused", "refused")
    assert "baton local up" in cloud_problem(refused, "p", HERE).fix
    assert "baton local up" not in cloud_problem(refused, "p").fix


@pytest.mark.parametrize("kind", list(TroubleKind))
def test_every_trouble_has_words_and_a_next_step(kind: TroubleKind) -> None:
    problem = cloud_problem(Trouble(kind, "CODE", "words"), "p")
    assert problem.what
    assert problem.fix
    passes = {TroubleKind.UNAVAILABLE, TroubleKind.RATE_LIMIT, TroubleKind.STOCKOUT}
    assert isinstance(problem, Transient) == (kind in passes | {TroubleKind.PREEMPTED, TroubleKind.NOT_READY})
