"""Proves what infra/setup.sh tells gcloud: the commands for an empty project are the golden ones; run again it makes
nothing; what somebody changed is mended; --undo takes back what was made; no secret is on a command line or in `.env`.

`python -m tests.infra.setup.test_setup` writes the golden file anew, for a person to read and commit.
"""

import hashlib
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from infra.cli.setup import app
from infra.setup.dotenv import merged
from infra.setup.grants import COMPUTE
from infra.setup.wanted import all_regions
from tests.infra.setup.conftest import Project

ROOT = Path(__file__).parents[3]
GOLDEN = Path(__file__).with_name("golden") / "commands.txt"
ALL = ("--project=my-project", "--nat", "--cloud-build", "--github=me/baton", "--github-id=42")
REGIONS = all_regions  # before a test takes fewer
SECRET = "hf_MARKED-not-to-be-seen"


def dry_run() -> str:
    done = CliRunner().invoke(app, [*ALL, "--dry-run"])
    assert done.exit_code == 0, done.output
    return done.stdout.replace(str(ROOT), "CLONE")


def test_the_commands_for_an_empty_project_are_the_golden_ones(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.setup.wanted.all_regions", REGIONS)
    assert dry_run() == GOLDEN.read_text()
    assert project.calls == [], "a dry run asks nobody"


def test_an_empty_project_is_made_ready_by_the_very_commands_of_the_dry_run(project: Project) -> None:
    shown = [line for line in dry_run().splitlines() if line.startswith("gcloud ")]
    project.setup(*ALL, "--yes")
    made = ["gcloud " + " ".join(call) for call in project.changes()]
    meant = [line.replace("CLONE", str(ROOT)).replace("PROJECT_NUMBER", "123456789") for line in shown]
    assert sorted(made) == sorted(" ".join(shlex.split(line)) for line in meant)


def test_run_again_it_makes_nothing(project: Project) -> None:
    project.setup(*ALL, "--yes")
    project.forget_calls()
    said = project.setup(*ALL, "--yes").stderr
    assert project.changes() == []
    assert "make  " not in said


def test_what_somebody_changed_is_mended_and_nothing_else(project: Project) -> None:
    project.setup(*ALL, "--yes")
    state = project.state
    things = state["things"]
    bucket = things["storage buckets gs://my-project-baton"]
    bucket["softDeletePolicy"]["retentionDurationSeconds"] = "604800"
    bucket["versioning"] = {"enabled": True}
    things["compute networks subnets baton us-east1"]["privateIpGoogleAccess"] = False
    del things["compute networks subnets baton us-west1"]
    things["iam roles batonWatchdog"]["includedPermissions"].append("compute.instances.setIamPolicy")
    state["policies"]["projects my-project"]["bindings"] = []
    project.change(state)
    project.forget_calls()
    project.setup(*ALL, "--yes")
    told = [" ".join(call) for call in project.changes()]
    starts = [
        "storage buckets update gs://my-project-baton --clear-soft-delete --no-versioning",
        "compute networks subnets create baton --network=baton --region=us-west1 --range=10.64.",
        "compute networks subnets update baton --region=us-east1 --enable-private-ip-google-access",
        f"iam roles update batonWatchdog --project=my-project --permissions={','.join(sorted(COMPUTE))}",
        "projects add-iam-policy-binding my-project",
        "projects add-iam-policy-binding my-project",
    ]
    assert len(told) == len(starts)
    for start in starts:
        assert any(line.startswith(start) for line in told), (start, told)


def test_it_is_taken_back_but_for_runs_images_and_services_and_can_be_made_again(project: Project) -> None:
    project.setup(*ALL, "--yes")
    project.setup("--project=my-project", "--undo", "--yes")
    state = project.state
    left = {key for key, one in state["things"].items() if "DELETED" not in str(one) and "'deleted'" not in str(one)}
    assert left == {
        "storage buckets gs://my-project-baton",
        "storage managed-folders gs://my-project-baton/runs/",
        "storage managed-folders gs://my-project-baton/builds/",
        "artifacts repositories baton us-central1",
        "iam workload-identity-pools providers github global",  # its pool is deleted
    }
    assert [one for policy in state["policies"].values() for one in policy["bindings"]] == []
    project.setup(*ALL, "--yes")
    project.forget_calls()
    project.setup(*ALL, "--yes")
    assert project.changes() == []


def test_secrets_go_in_by_standard_input_and_only_their_versions_are_written_down(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.dotenv.write_text(f"# mine\nexport BATON_PROJECT=old\nHF_TOKEN={SECRET}\n")
    monkeypatch.setenv("GEMINI_API_KEY", f"{SECRET}-2")
    said = project.setup("--project=my-project", "--yes")
    assert SECRET not in said.output
    assert not [call for call in project.calls if SECRET in " ".join(call)]
    told = hashlib.sha256(SECRET.encode()).hexdigest()[:8]
    assert ["secrets", "versions", "add", "baton-hf-token", "--data-file=-", f" <{told}"] in project.calls
    lines = project.dotenv.read_text().splitlines()
    assert lines[:3] == ["# mine", "BATON_PROJECT=my-project", f"HF_TOKEN={SECRET}"], "the user's own lines stay"
    assert "BATON_SECRET_HF_TOKEN=projects/my-project/secrets/baton-hf-token/versions/1" in lines
    assert "BATON_SECRET_GEMINI_API_KEY=projects/my-project/secrets/baton-gemini-api-key/versions/1" in lines
    assert oct(project.dotenv.stat().st_mode)[-3:] == "600"

    project.setup("--project=my-project", "--rotate=HF_TOKEN", "--yes")
    assert "/baton-hf-token/versions/2" in project.dotenv.read_text()
    assert "/baton-gemini-api-key/versions/1" in project.dotenv.read_text()


def test_nobody_is_asked_and_nothing_is_made_without_a_terminal_or_yes(project: Project) -> None:
    done = CliRunner().invoke(app, ["--project=my-project"])
    assert "--yes agrees" in str(done.exception)
    assert project.changes() == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--project=MY PROJECT"], "no project's id"),
        (["--project=my-project", "--region=moon-1"], "no GPU is rented there"),
        (["--project=my-project", "--github=me/baton"], "go together"),
        (["--project=my-project", "--github=me", "--github-id=1"], "not OWNER/REPO"),
        (["--project=my-project", "--rotate=PASSWORD"], "no such secret"),
        (["--project=my-project", "--bucket=A B"], "no bucket's name"),
        ([], "No project is named"),
    ],
)
def test_bad_words_are_refused_before_anything_is_asked(project: Project, words: list[str], said: str) -> None:
    done = CliRunner().invoke(app, [*words, "--yes"])
    assert said in str(done.exception)
    assert project.calls == []


def test_a_bucket_elsewhere_is_refused(project: Project) -> None:
    project.setup("--project=my-project", "--yes")
    done = CliRunner().invoke(app, ["--project=my-project", "--region=us-east1", "--yes"])
    assert "is in us-central1, not in us-east1" in str(done.exception)


def test_the_script_is_that_command() -> None:
    done = subprocess.run(
        [ROOT / "infra/setup.sh", "--help"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert "Makes a project on Google Cloud ready" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "A=1\n"),
        ("A=2\nB=3", "A=1\nB=3\n"),
        ("#A=2\nexport A = 4\nA=5\n", "#A=2\nA=1\n"),
    ],
)
def test_env_keeps_what_is_not_ours(text: str, expected: str) -> None:
    assert merged(text, {"A": "1"}) == expected


if __name__ == "__main__":
    GOLDEN.write_text(dry_run())
    print(f"{GOLDEN} is written", file=sys.stderr)
