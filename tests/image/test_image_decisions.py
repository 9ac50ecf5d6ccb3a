"""What is decided about the image, without an engine: which one builds it, how, and what its complaints mean."""

import json
import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from infra.machines import machines
from job.errors import ExitCode, NeedsPerson, UsageError
from tools.image.__main__ import tell
from tools.image.base import import_commands
from tools.image.engine import Engine, choose
from tools.image.host import NOFILE, Host, containers_conf
from tools.image.orders import (
    Base,
    Build,
    build_command,
    commit_of,
    copy_command,
    digest_in,
    pull_command,
    push_command,
    pushed_name,
    remote_name,
    tag_of,
)
from tools.image.trouble import NEEDS_GB, check_disk, check_platform, explain

ROOT = Path(__file__).parents[2]
DIGEST = "sha256:" + "0123456789abcdef" * 4
COMMIT = "0123456789abcdef0123456789abcdef01234567"
BUILD = Build(target="train-cpu", base=Base(f"debian@{DIGEST}", DIGEST), commit=COMMIT, context=Path("/clone"))
FRESH = Host(cgroup_v2=True, systemd=True, may_raise_limits=True, nofile=NOFILE, nproc=32768, has_runc=False)


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        ({"docker": True, "podman": True, "buildah": True}, "docker"),
        ({"docker": False, "podman": True, "buildah": True}, "podman"),  # a client without its daemon
        ({"buildah": True}, "buildah"),
    ],
)
def test_the_first_engine_that_answers_is_taken(answers: dict[str, bool], name: str) -> None:
    assert choose(answers, buildx=True) == Engine(name, buildx=name == "docker")


def test_no_engine_says_what_to_install() -> None:
    with pytest.raises(NeedsPerson, match="none of docker, podman and buildah") as none:
        choose({"docker": False})
    assert "system-deps.sh image" in none.value.fix
    with pytest.raises(NeedsPerson, match="podman does"):
        choose({"docker": True}, asked="podman")


def test_a_machine_on_which_podman_works_by_itself_is_told_nothing() -> None:
    assert containers_conf(FRESH) == ""


def test_a_machine_without_systemd_cgroup_v2_and_rights_gets_what_podman_needs_there() -> None:
    poor = Host(cgroup_v2=False, systemd=False, may_raise_limits=False, nofile=20000, nproc=20000, has_runc=True)
    told = tomllib.loads(containers_conf(poor))
    assert told["containers"] == {"default_ulimits": ["nofile=20000:20000", "nproc=20000:20000"]}
    assert told["engine"] == {"runtime": "runc", "cgroup_manager": "cgroupfs", "events_logger": "file"}


@pytest.mark.parametrize(
    "engine", [Engine("docker", buildx=True), Engine("docker"), Engine("podman"), Engine("buildah")]
)
def test_every_engine_gets_target_base_commit_and_the_only_platform(engine: Engine) -> None:
    command = build_command(engine, BUILD)
    assert command[0] == engine.name
    assert command[-1] == "/clone"
    assert {
        "--target=train-cpu",
        "--platform=linux/amd64",
        f"--build-arg=BASE_IMAGE=debian@{DIGEST}",
        f"--build-arg=REVISION={COMMIT}",
        f"--label=org.opencontainers.image.base.digest={DIGEST}",
        "--tag=localhost/baton/train-cpu:0123456789ab",
    } <= set(command)


def test_podman_and_buildah_keep_the_health_check() -> None:
    for name in ("podman", "buildah"):
        assert "--format=docker" in build_command(Engine(name), BUILD)


def test_a_build_without_unsloth_is_one_argument_away() -> None:
    train = Build(target="train", base=BUILD.base, commit=COMMIT, context=Path(), unsloth=False)
    assert "--build-arg=UNSLOTH=no" in build_command(Engine("podman"), train)
    assert not any("UNSLOTH" in word for word in build_command(Engine("podman"), BUILD))


def test_certificates_reach_a_build_as_a_secret_and_never_as_an_argument() -> None:
    build = Build(target="slim", base=BUILD.base, commit=COMMIT, context=Path(), ca=Path("/etc/proxy.crt"))
    words = [word for word in build_command(Engine("podman"), build) if "proxy.crt" in word]
    assert words == ["--secret=id=ca,src=/etc/proxy.crt"]


def test_buildx_pushes_zstd_layers_in_oci_form_from_its_cache() -> None:
    command = build_command(Engine("docker", buildx=True), BUILD, push_to="h/p/r/train-cpu:t", metadata=Path("/m"))
    (output,) = (word for word in command if word.startswith("--output="))
    assert "name=h/p/r/train-cpu:t,push=true" in output
    assert "compression=zstd" in output
    assert "oci-mediatypes=true" in output
    assert "--metadata-file=/m" in command
    cached = replace(BUILD, cache="h/p/cache")
    command = build_command(Engine("docker", buildx=True), cached, push_to="h/p/r/train-cpu:t")
    assert "--cache-to=type=registry,ref=h/p/cache:train-cpu,mode=max" in command


def test_only_a_registry_on_this_machine_is_spoken_to_without_tls() -> None:
    for remote, plain in [("127.0.0.1:5000/a/slim:1", True), ("localhost:5000/a:1", True), ("eu.pkg.dev/a/b:1", False)]:
        push = push_command(Engine("podman"), "localhost/x", remote, Path("/d"), zstd=True)
        assert ("--tls-verify=false" in push) is plain
        assert ("--tls-verify=false" in pull_command(Engine("podman"), remote)) is plain


def test_a_pushed_image_is_named_by_its_digest() -> None:
    remote = remote_name("127.0.0.1:5000/p/r", "slim", COMMIT)
    assert remote == "127.0.0.1:5000/p/r/slim:0123456789ab"
    assert (
        pushed_name(remote, digest_in(f"latest: digest: {DIGEST} size: 1", remote))
        == f"127.0.0.1:5000/p/r/slim@{DIGEST}"
    )
    with pytest.raises(UsageError, match="No digest"):
        digest_in("pushed", remote)


def test_buildx_tells_the_digest_of_the_image_beside_that_of_its_configuration() -> None:
    told = {
        "buildx.build.provenance": {"materials": [{"uri": f"pkg:docker/debian@bookworm?digest=sha256:{'1' * 64}"}]},
        "containerimage.config.digest": f"sha256:{'2' * 64}",
        "containerimage.descriptor": {"digest": DIGEST, "size": 1},
        "containerimage.digest": DIGEST,
    }
    assert digest_in(json.dumps(told, indent=2), "h/p/slim") == DIGEST


@pytest.mark.parametrize("registry", ["", "https://eu.pkg.dev/p", "a b", "UPPER/case", "host/repo;rm"])
def test_what_is_no_registry_is_refused(registry: str) -> None:
    with pytest.raises(UsageError, match="is no registry"):
        remote_name(registry, "slim", COMMIT)


def test_a_copy_keeps_every_byte_and_without_a_tag_is_found_by_its_digest_only() -> None:
    source = f"eu.pkg.dev/p/r/slim@{DIGEST}"
    command = copy_command(source, "127.0.0.1:5000/p/slim")
    assert command[-2:] == [f"docker://{source}", f"docker://127.0.0.1:5000/p/slim@{DIGEST}"]
    assert "--preserve-digests" in command
    assert "--dest-tls-verify=false" in command
    assert "--src-tls-verify=false" not in command
    assert copy_command(source, "ghcr.io/x/slim:v1")[-1] == "docker://ghcr.io/x/slim:v1"
    assert copy_command(source, "ghcr.io/Owner/slim:RC")[-1] == "docker://ghcr.io/owner/slim:RC"
    with pytest.raises(UsageError, match="No digest"):
        copy_command("eu.pkg.dev/p/r/slim:v1", "ghcr.io/x/slim")


def test_what_was_pushed_is_told_to_the_next_steps_of_a_workflow(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "out"))
    tell(f"h/p/slim@{DIGEST}", "slim")
    told = dict(line.split("=", 1) for line in (tmp_path / "out").read_text().splitlines())
    assert told == {"image": f"h/p/slim@{DIGEST}", "name": "h/p/slim", "digest": DIGEST, "slim": f"h/p/slim@{DIGEST}"}
    assert capsys.readouterr().out == f"h/p/slim@{DIGEST}\n"


def test_an_image_of_changed_files_says_so() -> None:
    assert tag_of(commit_of(f"{COMMIT}\n", "")) == "0123456789ab"
    assert tag_of(commit_of(f"{COMMIT}\n", " M job/errors.py\n")) == "0123456789ab-changed"


@pytest.mark.parametrize(
    ("output", "code", "says"),
    [
        ("write /var/lib/x: no space left on device", 3, "the disk is full"),
        ("runc: exec /bin/sh: exec format error", 3, "another processor"),
        ("reading manifest sha256:0 in h/r: manifest unknown: manifest unknown", 2, "the registry has no NAME"),
        ("requested access to the resource is denied", 3, "refuses NAME"),
        ("pinging container registry h: Get https://h/v2/: dial tcp: lookup h: no such host", 76, "cannot be reached"),
        ("dial tcp 10.0.0.1:443: i/o timeout", 76, "cannot be reached"),
        ("step 3\nsomething else\n\n", 1, "something else"),
        ("", 1, "it said nothing"),
    ],
)
def test_what_an_engine_says_becomes_one_clear_line(output: str, code: int, says: str) -> None:
    error = explain(output, doing="pulling", image="NAME")
    assert error.exit_code == code
    assert says in error.what
    assert "\n" not in error.what


def test_a_disk_that_is_too_full_is_told_before_the_build() -> None:
    check_disk("slim", int(NEEDS_GB["slim"] * 1e9), "/var/lib/containers")
    with pytest.raises(NeedsPerson, match=r"/var/lib/containers has 0\.5 GB free, it takes 30 GB"):
        check_disk("train", 500_000_000, "/var/lib/containers")


def test_a_base_for_another_processor_is_refused() -> None:
    check_platform(["amd64"], "debian")
    with pytest.raises(NeedsPerson, match="debian is for arm64"):
        check_platform(["arm64"], "debian")


def test_a_base_made_from_an_archive_has_one_name_in_every_engine() -> None:
    for engine in ("docker", "podman", "buildah"):
        assert import_commands(engine, Path("b.tar"))[-1][-1] == "localhost/baton/base:bookworm"


def test_the_vms_boot_a_driver_that_the_image_works_with() -> None:
    (needed,) = re.findall(r"BATON_NEEDS_DRIVER=(\d+)", (ROOT / "Dockerfile").read_text())
    driver = re.search(r"nvidia-(\d+)", machines().boot_image)
    assert driver
    assert int(driver[1]) >= int(needed)


def test_the_image_holds_no_base_but_one_that_was_looked_up() -> None:
    assert "@sha256" not in re.sub(r"^#.*", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)


@pytest.mark.parametrize("target", ["image", "image-test", "image-push", "image-copy"])
def test_the_targets_of_make_say_what_they_would_do(target: str) -> None:
    words = ["make", "--silent", target, "DRY_RUN=1", "TARGET=slim", "ENGINE=podman", "REGISTRY=127.0.0.1:5000/p/r"]
    words += [f"FROM=h/p/slim@{DIGEST}", "TO=g/p/slim:1"]
    done = subprocess.run([*words, f"PYTHON={sys.executable}"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^(podman (build|push)|skopeo copy) ", done.stdout, re.MULTILINE)


def test_a_registry_with_a_scheme_is_refused_by_the_command() -> None:
    words = [
        sys.executable,
        "-m",
        "tools.image",
        "push",
        "--dry-run",
        "--engine=podman",
        "--registry=https://x",
        "slim",
    ]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.USAGE
    assert "is no registry" in done.stderr
