"""The workflows hold no logic and no rights that they do not need, and what they call works.

Each step is an action pinned by commit or one make target; each target is run by .ci/run, or here with DRY_RUN=1 and
the very variables that the workflow gives it. That the rules bite is shown by breaking the workflows.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from infra.registry.signer import Signer

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.name: path.read_text() for path in sorted(FOLDER.glob("*.yaml"))}
MAKEFILE = (ROOT / "Makefile").read_text()

ONE_TARGET = re.compile(r"(sudo --preserve-env=[A-Z_,]+ )?make (?P<target>[a-z-]+)")
PINNED_ACTION = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}")
COMMENTED_PIN = re.compile(r"uses: \S+@[0-9a-f]{40} # v\d+(\.\d+)+$")
TRIGGERS = {"pull_request", "push", "workflow_call"}
RIGHTS = {
    ("image.yaml", "push"): {"contents": "read", "id-token": "write", "attestations": "write"},
    ("image.yaml", "public"): {
        "contents": "read",
        "id-token": "write",
        "attestations": "write",
        "packages": "write",
    },
    ("release.yaml", "image"): {
        "contents": "read",
        "id-token": "write",
        "attestations": "write",
        "packages": "write",
    },
    ("release.yaml", "release"): {"contents": "write"},
}
"""What more than reading the repository a job may do. Everything else may read it and nothing more."""
PINNED = f"us-docker.pkg.dev/project/baton/train@sha256:{'0' * 64}"
SAMPLES = {
    "github.ref_name": "v1.2.0",
    "github.repository": "Owner/baton",
    "github.token": "token",
    "matrix.image": PINNED,
    "matrix.target": "train",
    "needs.base.outputs.image": f"docker.io/library/debian@sha256:{'0' * 64}",
    "needs.image.outputs.images": " ".join(f"{target}={PINNED}" for target in ("train", "train-cpu", "slim")),
    "steps.push.outputs.image": PINNED,
    "steps.push.outputs.name": PINNED.partition("@")[0],
    "vars.BATON_PROJECT": "project",
    "vars.BATON_REGION": "us",
}
"""What GitHub puts in the place of each expression that reaches a make target."""


class Call(NamedTuple):
    """A make target as a step calls it."""

    workflow: str
    target: str
    env: dict[str, str]


def jobs(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)["jobs"]


def broken_rules(name: str, text: str) -> Iterator[str]:
    """What in a workflow is against the rules, one line each."""
    workflow = yaml.safe_load(text)
    if not set(workflow[True]) <= TRIGGERS:  # YAML 1.1 reads `on` as true
        yield f"triggers {set(workflow[True]) - TRIGGERS}"
    if workflow.get("permissions") != {}:
        yield "permissions at the top"
    if not workflow.get("concurrency", {}).get("group"):
        yield "no concurrency group"
    if re.search(r"\bsecrets\b", text):
        yield "secrets"
    for line in text.splitlines():
        if "uses:" in line and "uses: ./" not in line and not COMMENTED_PIN.search(line):
            yield f"no commit with its version: {line.strip()}"
    for key, job in workflow["jobs"].items():
        if job.get("permissions") != RIGHTS.get((name, key), {"contents": "read"}):
            yield f"{key}: permissions {job.get('permissions')}"
        unsafe = "write" in job.get("permissions", {}).values() and "pull_request" in workflow[True]
        if unsafe and not re.match(r"github.event_name != 'pull_request' && |inputs.release$", job.get("if", "")):
            yield f"{key}: rights in a pull request"
        if called := job.get("uses"):
            if not (called.startswith("./") and (ROOT / called).is_file()):
                yield f"{key}: calls {called}"
            continue
        if not job.get("timeout-minutes"):
            yield f"{key}: no time-out"
        for step in job["steps"]:
            if "run" in step and not ONE_TARGET.fullmatch(step["run"]):
                yield f"{key}: more than one make target: {step['run']!r}"
            if "uses" in step and not PINNED_ACTION.fullmatch(step["uses"]):
                yield f"{key}: not pinned: {step['uses']}"
            if (
                "actions/checkout@" in step.get("uses", "")
                and step.get("with", {}).get("persist-credentials") is not False
            ):
                yield f"{key}: the token stays in the clone"


def calls() -> Iterator[Call]:
    """Every make target that a workflow calls, with the variables that it gets."""
    for name, text in WORKFLOWS.items():
        for job in jobs(text).values():
            for step in job.get("steps", ()):
                if match := ONE_TARGET.fullmatch(step.get("run", "")):
                    yield Call(name, match["target"], job.get("env", {}) | step.get("env", {}))


def prerequisites() -> dict[str, list[str]]:
    """{target: what it stands on} of the Makefile."""
    rules = dict(re.findall(r"^([a-z-]+):(.*?) ## ", MAKEFILE, re.MULTILINE))
    return {
        target: [word for word in re.findall(r"[a-z-]+", needs) if word in rules] for target, needs in rules.items()
    }


def run_by_ci() -> set[str]:
    """The targets that .ci/run makes, and those that they stand on."""
    stages = re.findall(r"^stage make (.+)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    found, left = set[str](), " ".join(stages).split()
    while left:
        if (target := left.pop()) not in found:
            found.add(target)
            left += prerequisites()[target]
    return found


def filled(value: str) -> str:
    return re.sub(r"\$\{\{ ([^}]+) \}\}", lambda match: SAMPLES[match[1]], value)


NOT_HERE = [call for call in calls() if call.target not in run_by_ci()]
RELEASE = [call for call in NOT_HERE if call.target.startswith("release")]
IMAGE = [call for call in NOT_HERE if call not in RELEASE]


def test_there_are_the_three_workflows() -> None:
    assert set(WORKFLOWS) == {"ci.yaml", "image.yaml", "release.yaml"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_keeps_every_rule(name: str) -> None:
    assert list(broken_rules(name, WORKFLOWS[name])) == []


def test_an_action_has_one_commit_everywhere() -> None:
    pins = re.findall(r"uses: (\S+)@(\S+) # (\S+)", "".join(WORKFLOWS.values()))
    assert len({action for action, _, _ in pins}) == len(set(pins))


def test_every_target_that_is_called_exists() -> None:
    assert {call.target for call in calls()} <= prerequisites().keys()


def test_ci_runs_the_checks_and_all_tests() -> None:
    assert {call.target for call in calls() if call.workflow == "ci.yaml"} >= {"check", "test-all"}


def dry_run(call: Call, folder: Path) -> str:
    """What the target prints with DRY_RUN=1 and what the workflow gives it."""
    env = os.environ | {key: filled(value) for key, value in call.env.items()} | {"DRY_RUN": "1"}
    command = ["make", "--no-print-directory", call.target]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("call", IMAGE, ids=lambda call: f"{call.workflow}-{call.target}")
def test_what_needs_registries_works_up_to_their_commands(call: Call) -> None:
    assert re.match(r"(docker|podman|buildah) |skopeo copy |docker.io/library/debian@sha256:", dry_run(call, ROOT))


def test_an_image_is_found_by_a_tag_only_once_it_is_signed() -> None:
    steps = [step for name in ("push", "public") for step in jobs(WORKFLOWS["image.yaml"])[name]["steps"]]
    order = [step.get("run", step.get("uses", "")).partition("@")[0] for step in steps]
    done = [word for word in order if word in ("make image-push", "make image-copy", "actions/attest")]
    signed = ["actions/attest", "actions/attest", "make image-copy"]
    assert done == ["make image-push", *signed, "make image-copy", *signed]
    copies = [dry_run(call, ROOT).split()[-1] for call in IMAGE if call.target == "image-copy"]
    assert copies == [
        "docker://us-docker.pkg.dev/project/baton/train:v1.2.0",
        f"docker://ghcr.io/owner/baton/train@{PINNED.partition('@')[2]}",
        "docker://ghcr.io/owner/baton/train:v1.2.0",
    ]


@pytest.mark.parametrize("call", RELEASE, ids=lambda call: call.target)
def test_what_makes_a_release_works_in_a_clone_of_one(call: Call, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "job").mkdir()
    for name in ("Makefile", "job/__init__.py", "job/errors.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    project = (ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(re.sub('^version = ".*"', 'version = "1.2.0"', project, flags=re.M))
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.0 - 2026-11-21\n\n- It works.\n")
    expected = "gh release create v1.2.0 " if call.target == "release" else ""
    assert dry_run(call, tmp_path).startswith(expected)


def test_what_launch_trusts_is_the_workflow_that_signs() -> None:
    signing = [name for name, text in WORKFLOWS.items() if "uses: actions/attest@" in text]
    assert [Signer("owner/repo").workflow] == [f"{FOLDER.relative_to(ROOT)}/{name}" for name in signing]


def test_what_a_fork_sets_up_is_in_the_contributing_guide() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    wanted = set(re.findall(r"vars\.([A-Z_]+)", "".join(WORKFLOWS.values())))
    assert wanted
    assert wanted <= set(re.findall(r"`([A-Z_]+)", guide))


@pytest.mark.parametrize(
    ("name", "old", "new", "rule"),
    [
        ("ci.yaml", "  pull_request:\n", "  pull_request_target:\n", "triggers"),
        ("ci.yaml", "\npermissions: {}\n", "\npermissions: write-all\n", "permissions at the top"),
        ("ci.yaml", "concurrency:\n  group:", "concurrency:\n  nothing:", "no concurrency group"),
        ("ci.yaml", "run: make check\n", "run: make check\n        env:\n          T: ${{ secrets.T }}\n", "secrets"),
        ("ci.yaml", "# v7.0.1", "", "no commit with its version"),
        ("ci.yaml", "@3d3c42e5aac5ba805825da76410c181273ba90b1", "@v7.0.1", "not pinned"),
        ("ci.yaml", "persist-credentials: false", "persist-credentials: true", "the token stays"),
        ("ci.yaml", "persist-credentials: false", "fetch-depth: 0", "the token stays"),
        ("ci.yaml", "run: make check", "run: make check && make test", "more than one make target"),
        ("ci.yaml", "run: make check", "run: make check ${{ github.head_ref }}", "more than one make target"),
        ("ci.yaml", "run: make check", "run: curl example.com", "more than one make target"),
        ("ci.yaml", "    timeout-minutes: 15\n", "", "no time-out"),
        ("ci.yaml", "contents: read", "contents: write", "permissions {'contents': 'write'}"),
        ("release.yaml", "contents: write", "write-all: true", "permissions {'write-all': True}"),
        ("image.yaml", "github.event_name != 'pull_request' && ", "", "rights in a pull request"),
        ("image.yaml", "    if: inputs.release\n", "", "rights in a pull request"),
        ("release.yaml", "uses: ./.github/workflows/image.yaml", "uses: ./.github/workflows/x.yaml", "calls ./"),
    ],
)
def test_a_workflow_that_breaks_a_rule_is_found(name: str, old: str, new: str, rule: str) -> None:
    text = WORKFLOWS[name]
    assert old in text
    found = list(broken_rules(name, text.replace(old, new, 1)))
    assert any(rule in one for one in found), found
