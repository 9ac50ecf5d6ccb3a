"""Each thing that may be wrong with a project is found, and told with its fix in the words of golden/findings.json.

`WRITE_GOLDEN=1 pytest tests/infra/doctor/test_findings.py` writes the file anew, for a person to read and commit.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google_project import BUCKET, OWN, PROJECT, GoogleProject, Said
from test_doctor import NOW_S, place

from infra.doctor.examine import CHECKS, find
from infra.machines import machines
from job.run.claims import Claim, update_claims
from job.run.looked import Looked, write_looked
from job.settings import load_settings
from job.storage import open_bucket

GOLDEN = Path(__file__).with_name("golden") / "findings.json"
REPOSITORY = Path(__file__).parents[3]
VERSION = f"{OWN}/secrets/baton-hf-token/versions/1"
LOGS = Said(403, "Cloud Billing API has not been used in project 1 before or it is disabled.", "SERVICE_DISABLED")
GATED = Said(403, headers={"X-Error-Code": "GatedRepo"})
HUB = "/api/models/org/model/auth-check"


@dataclass
class Broken:
    """What a case may break, and how it then asks."""

    project: GoogleProject
    monkeypatch: pytest.MonkeyPatch
    more: dict[str, Any]

    def unset(self, name: str) -> None:
        self.monkeypatch.delenv(name)

    def set(self, name: str, value: str) -> None:
        self.monkeypatch.setenv(name, value)

    def answer(self, path: str, found: Any) -> None:
        self.project.answers[path] = found

    def lacks(self, path: str) -> None:
        del self.project.answers[path]

    def recipe(self, model: str = "org/model") -> None:
        self.more["settings"] = load_settings(REPOSITORY / "recipes/math-l4.toml", [f"model.name={model}"]).settings

    def stored(self, state: str = "ENABLED") -> None:
        """A secret as setup stores it."""
        self.set("BATON_SECRET_HF_TOKEN", VERSION)
        self.project.gcloud(["secrets", "create", "baton-hf-token"])
        self.project.gcloud(["secrets", "versions", "add", "baton-hf-token"])
        self.answer(f"/v1/{VERSION}", {"state": state})

    def run(self, looked_s_ago: float | None) -> None:
        """A run whose VMs are to be looked after."""
        bucket = open_bucket(f"gs://{BUCKET}/runs/mine")
        claim = Claim(number=1, kind="vm", claimed_at_s=NOW_S - 9000, zone="z", vm="v", request_id="r", spot=True)
        update_claims(bucket, lambda before: before.model_copy(update={"attempts": (claim,)}))
        if looked_s_ago is not None:
            write_looked(bucket, Looked(watcher="w", at_s=NOW_S - looked_s_ago, next_at_s=NOW_S - looked_s_ago + 30))


def _quota(broken: Broken, metric: str, limit: float = 0) -> None:
    broken.project.order("quota", metric=metric, limit=limit, region="*")


def _all_but_l4(broken: Broken) -> None:
    broken.more["gpu"] = "l4"
    for metric in ("NVIDIA_L4_GPUS", "PREEMPTIBLE_NVIDIA_L4_GPUS"):
        _quota(broken, metric)


def _elsewhere(broken: Broken) -> None:
    broken.project.cloud.storage.make_bucket("in-africa", "africa-south1")
    broken.set("BATON_BUCKET", "gs://in-africa")


def _without_a_right(broken: Broken) -> None:
    broken.project.answers[f"/v1/{OWN}/roles/batonWatchdog"]["includedPermissions"].pop()


def _open_subnet(broken: Broken) -> None:
    broken.project.subnet("us-central1")["privateIpGoogleAccess"] = False


def _needs_nat(broken: Broken) -> None:
    broken.recipe()


def _own_registry(broken: Broken) -> None:
    broken.set("BATON_IMAGE", f"us-central1-docker.pkg.dev/{PROJECT}/baton/train@sha256:{'0' * 64}")
    broken.lacks(f"/v1/{OWN}/locations/us-central1/repositories/baton")


def _bucket(**patch: Any) -> Callable[[Broken], None]:
    return lambda broken: broken.project.patch_bucket(patch)


def _token_for_nobody(broken: Broken) -> None:
    broken.recipe()
    broken.set("HF_TOKEN", "hf_x")
    broken.answer(HUB, GATED)
    broken.monkeypatch.setattr("infra.doctor.checks.model._ask_hub", _gives_to_tokens)


def _gives_to_tokens(name: str, token: str | None) -> None:
    """The Hub of a gated model; the server of these tests answers everybody the same."""
    from job.errors import NeedsPerson

    if token is None:
        raise NeedsPerson(f"no access to {name}")


def _model(answer: Any) -> Callable[[Broken], None]:
    def breaks(broken: Broken) -> None:
        broken.recipe()
        broken.answer(HUB, answer)

    return breaks


def _image(reference: Callable[[GoogleProject], str]) -> Callable[[Broken], None]:
    return lambda broken: broken.set("BATON_IMAGE", reference(broken.project))


CASES: dict[str, tuple[str, Callable[[Broken], None]]] = {
    "no GPU quota at all": ("GPU quota", lambda broken: broken.project.no_gpus()),
    "no quota for the GPU that is meant": ("GPU quota", _all_but_l4),
    "no GPU in all regions together": ("GPU quota", lambda broken: _quota(broken, "GPUS_ALL_REGIONS")),
    "a region that does not count this GPU": ("GPU quota", lambda b: b.answer(f"/compute/v1/{OWN}/regions", {})),
    "no credentials": ("credentials", lambda broken: broken.unset("CLOUDSDK_AUTH_DISABLE_CREDENTIALS")),
    "no project is named": ("project", lambda broken: broken.more.update(named_project=None)),
    "no such project": ("project", lambda broken: broken.lacks(f"/v1/{OWN}")),
    "a project that one may not see": ("project", lambda b: b.answer(f"/v1/{OWN}", Said(403, "Permission denied."))),
    "a project that is being deleted": (
        "project",
        lambda broken: broken.answer(f"/v1/{OWN}", {"lifecycleState": "DELETE_REQUESTED"}),
    ),
    "nobody pays": ("billing", lambda broken: broken.answer(f"/v1/{OWN}/billingInfo", {})),
    "an API that cannot be asked": ("billing", lambda broken: broken.answer(f"/v1/{OWN}/billingInfo", LOGS)),
    "an API in trouble": ("billing", lambda broken: broken.answer(f"/v1/{OWN}/billingInfo", Said(500, "oops"))),
    "an API that talks nonsense": ("billing", lambda broken: broken.answer(f"/v1/{OWN}/billingInfo", b"<html>")),
    "an expired login": ("billing", lambda broken: broken.answer(f"/v1/{OWN}/billingInfo", Said(401, "expired"))),
    "a service is missing": ("services", lambda b: b.project.answers[f"/v1/{OWN}/services"]["services"].pop()),
    "no bucket is named": ("bucket", lambda broken: broken.unset("BATON_BUCKET")),
    "a bucket on this machine": ("bucket", lambda broken: broken.set("BATON_BUCKET", "file:///tmp/runs")),
    "no such bucket": ("bucket", lambda broken: broken.set("BATON_BUCKET", "gs://nobodys")),
    "a bucket far from any GPU": ("bucket", _elsewhere),
    "a bucket that may be public": ("bucket", _bucket(iamConfiguration={"publicAccessPrevention": "inherited"})),
    "a bucket that keeps what is deleted": ("bucket", _bucket(softDeletePolicy={"retentionDurationSeconds": "604800"})),
    "a bucket with versions": ("bucket", _bucket(versioning={"enabled": True})),
    "a bucket that keeps parts": ("bucket", _bucket(lifecycle={"rule": []})),
    "no network": ("network", lambda broken: broken.lacks(f"/compute/v1/{OWN}/global/networks/baton")),
    "no way in": ("network", lambda b: b.lacks(f"/compute/v1/{OWN}/global/firewalls/baton-ssh-from-iap")),
    "a subnet without a way to Google": ("network", _open_subnet),
    "no way to the Hub": ("network", _needs_nat),
    "no account": (
        "accounts",
        lambda b: b.lacks(f"/v1/{OWN}/serviceAccounts/baton-vm@{PROJECT}.iam.gserviceaccount.com"),
    ),
    "a right too few": ("accounts", _without_a_right),
    "nobody may write": ("accounts", lambda broken: broken.lacks(f"/storage/v1/b/{BUCKET}/iam")),
    "accounts of one's own": ("accounts", lambda broken: broken.set("BATON_SERVICE_ACCOUNT", "own@p.iam")),
    "no repository": ("registry", _own_registry),
    "no image": ("image", lambda broken: broken.unset("BATON_IMAGE")),
    "an image that is not there": ("image", _image(lambda project: project.image().replace("/p/train", "/p/other"))),
    "an image for other machines": ("image", _image(lambda project: project.image("arm64"))),
    "a registry that does not answer": ("image", _image(lambda _: f"127.0.0.1:1/p/train@sha256:{'0' * 64}")),
    "a tag without an attestation, or a name that is none": ("image", _image(lambda _: "train:latest")),
    "a secret that was disabled": ("secrets", lambda broken: broken.stored("DISABLED")),
    "a secret that VMs may not read": ("secrets", lambda broken: broken.stored()),
    "a gated model, no token": ("model", _model(GATED)),
    "a gated model, a token that VMs do not get": ("model", _token_for_nobody),
    "no such model": ("model", _model(Said(404, headers={"X-Error-Code": "RepoNotFound"}))),
    "a Hub in trouble": ("model", _model(Said(500))),
    "a key that VMs do not get": (
        "judge key",
        lambda broken: broken.more.update(set_in={"OPENAI_API_KEY": ".env OPENAI_API_KEY"}),
    ),
    "a run that nobody ever looked after": ("watchdog", lambda broken: broken.run(None)),
    "a run that nobody looks after any more": ("watchdog", lambda broken: broken.run(3600)),
    "prices of last year": ("prices", lambda broken: broken.more.update(now_s=NOW_S + 400 * 86400)),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_wrong_is_told_with_its_fix(ready: GoogleProject, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    name, breaks = CASES[case]
    check = next(one for one in CHECKS if one.name == name)
    broken = Broken(ready, monkeypatch, {})
    assert not case.startswith("a secret") or find(check, place()).state == "not asked"
    breaks(broken)
    found = find(check, place(**broken.more))
    text = json.dumps({"state": found.state, "line": found.line, "fix": found.fix.splitlines()})
    text = text.replace(ready.url.removeprefix("http://"), "HOST").replace(str(REPOSITORY), "CLONE")
    told = json.loads(text.replace(ready.image().rpartition("@")[2], "sha256:IMAGE"))
    if os.environ.get("WRITE_GOLDEN"):
        all_of_them = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(dict(sorted((all_of_them | {case: told}).items())), indent=2) + "\n")
    assert told == json.loads(GOLDEN.read_text())[case]
    assert told["state"] in ("to do", "not known")
    assert told["fix"] or told["state"] == "not known", "what is to be done has a command"


def test_the_golden_file_has_these_cases_and_no_others() -> None:
    assert set(json.loads(GOLDEN.read_text())) == set(CASES)


def test_each_check_is_broken_by_a_case() -> None:
    assert {name for name, _ in CASES.values()} == {check.name for check in CHECKS}


def test_each_gpu_has_its_metric() -> None:
    assert len({gpu.quota for gpu in machines().gpu.values()}) == len(machines().gpu)
