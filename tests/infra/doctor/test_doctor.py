"""`baton doctor` turns from red to green by the very commands that it names, against the local cloud and, over HTTP,
the APIs that that one has not; it ends in time whoever does not answer, and what could not be told is never green."""

import json
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from google_project import BUCKET, PROJECT, GoogleProject, Said

from infra.cli.run import run
from infra.doctor.checks.prices import look_at_prices
from infra.doctor.examine import CHECKS, DEADLINE_S, examine
from infra.doctor.finding import NotKnown, not_known, ok
from infra.doctor.place import Check, Place
from job.settings import load_environment

NOW_S = 1_795_000_000.0  # November 2026


def place(**more: Any) -> Place:
    """Where the test's environment points."""
    given: dict[str, Any] = {"settings": None, "gpu": None, "set_in": {}, "named_project": PROJECT, "now_s": NOW_S}
    return Place(environment=load_environment(), **(given | more))


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    """Exit code, and the findings by their checks."""
    code = run(["doctor", "--json", *words])
    return code, {one["check"]: one for one in json.loads(capsys.readouterr().out)}


def test_an_empty_project_becomes_ready_by_the_commands_that_are_named(
    project: GoogleProject, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.doctor.checks.set_up.MOST_COMMANDS", 10**6)  # each command by itself, not setup
    monkeypatch.delenv("BATON_IMAGE")
    project.no_gpus()
    code, found = told(capsys)
    red = {name for name, one in found.items() if one["state"] == "to do"}
    assert (code, red) == (3, {"GPU quota", "services", "bucket", "network", "accounts", "registry", "image"})
    for name in red - {"image"}:
        project.run("\n".join(found[name]["fix"]))
    code, found = told(capsys)
    assert (code, {name for name, one in found.items() if one["state"] == "to do"}) == (3, {"image"})
    monkeypatch.setenv("BATON_IMAGE", project.image())
    code, found = told(capsys)
    assert (code, {one["state"] for one in found.values()}) == (0, {"ok", "not asked"})


def test_one_command_makes_what_setup_makes(project: GoogleProject, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys)
    assert code == 3
    many = {line for name in ("network", "accounts", "registry") for line in found[name]["fix"]}
    assert many == {f"infra/setup.sh --project {PROJECT} --region us-central1 --bucket {BUCKET}"}
    project.run(many.pop())
    assert told(capsys)[0] == 0


def test_no_row_is_missing_and_quota_is_the_first(ready: GoogleProject, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = told(capsys)
    assert list(found) == [check.name for check in CHECKS]
    assert next(iter(found)) == "GPU quota"


def test_people_see_each_check_and_below_it_what_to_type(
    ready: GoogleProject, capsys: pytest.CaptureFixture[str]
) -> None:
    ready.answers[f"/v1/projects/{PROJECT}/billingInfo"] = {"billingEnabled": False}
    assert run(["doctor"]) == 3
    said = capsys.readouterr()
    assert f"gcloud billing projects link {PROJECT} --billing-account=ACCOUNT_ID" in said.out
    assert "to do: billing." in said.err


def test_what_is_not_known_is_not_green(ready: GoogleProject, capsys: pytest.CaptureFixture[str]) -> None:
    ready.answers[f"/v1/projects/{PROJECT}/billingInfo"] = Said(503, "backend error")
    code, found = told(capsys)
    assert code == 76
    assert found["billing"]["state"] == "not known"
    assert found["billing"]["line"] == "cloudbilling says 503: backend error"


def test_whoever_does_not_answer_is_not_waited_for(ready: GoogleProject) -> None:
    never = threading.Event()
    for path in [path for path in ready.answers if path.startswith("/v1/")]:
        ready.answers[path] = Said(200, wait=never)
    began_s = time.monotonic()
    found = {one.check: one.finding for one in examine(place(), deadline_s=1.0)}
    assert time.monotonic() - began_s < DEADLINE_S
    never.set()
    assert found["billing"] == not_known("no answer in 1 s")
    assert found["prices"].state == "ok"


def test_a_mistake_in_a_check_is_seen_and_not_taken_for_a_finding(ready: GoogleProject) -> None:
    def broken(_: Place) -> Any:
        raise KeyError("a bug")

    with pytest.raises(KeyError):
        examine(place(), [Check("broken", broken), Check("fine", lambda _: ok("fine"))])


def test_no_other_cloud_is_asked_about_a_project_of_the_local_one(
    ready: GoogleProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_CLOUDBILLING")
    with pytest.raises(NotKnown, match="has no cloudbilling"):
        place().google.get("cloudbilling", f"projects/{PROJECT}/billingInfo")


def test_no_secret_leaves_this_machine_but_the_token_for_the_hub(
    ready: GoogleProject, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    for name in ("GEMINI_API_KEY", "OPENAI_API_KEY", "WANDB_API_KEY", "HF_TOKEN"):
        monkeypatch.setenv(name, f"marked-{name}")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('task = "math_qa"\n[data]\ntrain = "q.jsonl"\n[model]\nname = "org/gated"\n')
    ready.answers["/api/models/org/gated/auth-check"] = Said(403, headers={"X-Error-Code": "GatedRepo"})
    run(["doctor", str(recipe), "--json"])
    told = capfd.readouterr()
    assert "marked" not in told.out + told.err
    marked = [(path, token) for path, _, token in ready.asked if "marked" in f"{path} {token}"]
    assert {token for _, token in marked} == {"Bearer marked-HF_TOKEN"}
    assert all(path.startswith("/api/models/org/gated/auth-check") for path, _ in marked)


def test_prices_that_a_launch_has_read_today_are_not_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE", raising=False)
    monkeypatch.setenv("BATON_CACHE", str(tmp_path))
    later = place(now_s=NOW_S + 400 * 86400)
    assert look_at_prices(later).state == "to do"
    (tmp_path / "prices.json").write_text(
        json.dumps({"date": f"{datetime.fromtimestamp(later.now_s, UTC):%Y-%m-%d}", "usd": []})
    )
    assert look_at_prices(later).state == "ok"
