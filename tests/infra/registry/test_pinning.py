"""A tag becomes the digest that its builder attested; a digest stays itself; what is wrong is one line with the fix.

Against a registry of the tests' own and against Debian's docker-registry, with attestations that a Sigstore of the
tests' own signed.
"""

import base64
import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

import infra.registry.client
from infra.registry.client import MOST_BUNDLES, Registry
from infra.registry.images import Container, pin_image
from infra.registry.reference import parse_reference
from infra.registry.signer import Signer, repository_of, signer_of
from job.errors import BatonError, NeedsPerson, Transient, UsageError
from job.settings.environment import Environment
from tests.infra.registry.own_registry import TOKEN, OwnRegistry, own_registry
from tests.infra.registry.own_sigstore import OwnSigstore, of
from tests.infra.registry.pushing import AMD64, ARM64, Pusher

NAME = "p/baton/train"
NOBODY = "localhost:1"  # where no registry can be: the port is reserved
SIGSTORE = OwnSigstore()
GONE = f"sha256:{'0' * 64}"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    path = tmp_path_factory.mktemp("trust") / "trusted_root.json"
    path.write_text(SIGSTORE.trust_root())
    return Environment(_env_file=None, image_signer="me/baton", image_trust_root=path)


@pytest.fixture
def registry() -> Iterator[OwnRegistry]:
    with own_registry() as known:
        yield known


@pytest.fixture
def pusher(registry: OwnRegistry) -> Pusher:
    return Pusher(registry.host, NAME)


def refused(kind: type[BatonError], given: str, environment: Environment) -> BatonError:
    with pytest.raises(kind) as caught:
        pin_image(given, environment)
    assert "\n" not in caught.value.what
    assert caught.value.fix
    return caught.value


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("us-docker.pkg.dev/p/r/train:v1", "us-docker.pkg.dev/p/r/train:v1"),
        (f"ghcr.io/me/baton@{GONE}", f"ghcr.io/me/baton@{GONE}"),
        (f"ghcr.io/me/baton:v1@{GONE}", f"ghcr.io/me/baton@{GONE}"),
        ("localhost:5000/a:B-1.0_x", "localhost:5000/a:B-1.0_x"),
    ],
)
def test_a_container_is_named_by_host_and_tag_or_digest(given: str, kept: str) -> None:
    assert str(parse_reference(given, "BATON_IMAGE")) == kept


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("", "is not the name"),
        ("train:v1", "is not the name"),
        ("me/train:v1", "does not say in which registry"),
        ("ghcr.io/me/train", "neither a tag nor a digest"),
        ("ghcr.io/me/Train:v1", "is not the name"),
        ("ghcr.io/me/train@sha256:0123", "is not the name"),
        ("ghcr.io/me/../train:v1", "is not the name"),
        ("https://ghcr.io/me/train:v1", "is not the name"),
        ("ghcr.io/me/train:v1 --privileged", "is not the name"),
        ("ghcr.io/me/train:v1\n", "is not the name"),
    ],
)
def test_what_is_no_name_is_refused_before_anything_is_asked(given: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_reference(given, "--image")
    assert "--image" in caught.value.what
    assert "HOST/PROJECT/REPO/NAME:TAG" in caught.value.fix


def test_google_gets_credentials_and_only_this_machine_is_asked_without_tls() -> None:
    def named(host: str) -> tuple[bool, str]:
        found = parse_reference(f"{host}/p/r/train:v1", "BATON_IMAGE")
        return found.is_google, found.url

    assert named("europe-west4-docker.pkg.dev") == (True, "https://europe-west4-docker.pkg.dev")
    assert [named(host)[0] for host in ("gcr.io", "eu.gcr.io")] == [True, True]
    for other in ("ghcr.io", "us-docker.pkg.dev.evil.com", "evil-gcr.io", "us-docker.pkg.dev:444"):
        assert named(other) == (False, f"https://{other}")
    assert [named(host)[1] for host in ("localhost:5000", "127.0.0.1:1")] == [
        "http://localhost:5000",
        "http://127.0.0.1:1",
    ]


# --- tags ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("referrers", [True, False])
@pytest.mark.parametrize("wants_token", [True, False])
def test_a_tag_becomes_the_digest_that_was_attested(
    registry: OwnRegistry, pusher: Pusher, environment: Environment, referrers: bool, wants_token: bool
) -> None:
    registry.referrers = referrers
    image = pusher.image("v1")
    pusher.attach(image, SIGSTORE.attest(image["digest"], predicate_type="https://spdx.dev/Document/v2.3"))
    pusher.attach(image, SIGSTORE.attest(image["digest"]))
    registry.wants_token = wants_token
    found = pin_image(f"{registry.host}/{NAME}:v1", environment)
    assert found.image == f"{registry.host}/{NAME}@{image['digest']}"
    assert "built by me/baton/.github/workflows/image.yaml@refs/tags/v1.0, commit c0ffeec0ffee" in found.known
    told = {authorization for _, path, authorization in registry.asked if path.startswith("/v2/")}
    assert (f"Bearer {TOKEN}" in told) is wants_token


def test_of_several_platforms_the_tag_stands_for_all_and_the_attestation_is_of_them_together(
    registry: OwnRegistry, pusher: Pusher, environment: Environment
) -> None:
    index = pusher.index("v1", ARM64, AMD64)
    pusher.attach(index, SIGSTORE.attest(index["digest"]))
    assert pin_image(f"{registry.host}/{NAME}:v1", environment).image.endswith(index["digest"])


def test_a_tag_that_was_moved_is_not_covered_by_the_attestation_of_what_it_was(
    registry: OwnRegistry, pusher: Pusher, environment: Environment
) -> None:
    genuine = pusher.image("v1")
    bundle = SIGSTORE.attest(genuine["digest"])
    pusher.attach(genuine, bundle)
    moved = pusher.image("v1", words="something else")
    given = f"{registry.host}/{NAME}:v1"
    assert "nothing attests who built it" in refused(NeedsPerson, given, environment).what
    pusher.attach(moved, bundle)
    assert f"it is about something else than {moved['digest']}" in refused(NeedsPerson, given, environment).what
    pusher.attach(moved, SIGSTORE.attest(moved["digest"], of(repository="evil/baton")))
    assert "does not hold" in refused(NeedsPerson, given, environment).what
    assert pin_image(f"{registry.host}/{NAME}@{genuine['digest']}", environment)


@pytest.mark.parametrize(
    ("answers", "kind", "said"),
    [
        ({"/v1": (404, b"{}")}, UsageError, "is not in the registry"),
        (
            {"/v1": (404, b'{"errors": [{"code": "NAME_UNKNOWN", "message": "no such\\nname"}]}')},
            UsageError,
            "no such name",
        ),
        ({"/v1": (401, b"{}")}, NeedsPerson, "no permission"),
        ({"/v1": (403, b'{"errors": [{"code": "DENIED"}]}')}, NeedsPerson, "no permission .*DENIED"),
        ({"/v1": (429, b"")}, Transient, "does not answer now"),
        ({"/v1": (503, b"<html>")}, Transient, "does not answer now"),
        ({"/v1": (200, b"<html>")}, NeedsPerson, "is not JSON"),
        ({"/v1": (200, b"[]")}, NeedsPerson, "no manifest"),
        ({"/v1": (200, b"[" * 2_000_000)}, NeedsPerson, "is not JSON"),
        ({"/v1": (200, b"{}")}, NeedsPerson, "names something by 'None'"),
        ({"/v1": (200, b'{"config": {"digest": "sha256:../../x"}}')}, NeedsPerson, "names something by"),
        ({"/v1": (200, b'{"manifests": "x"}')}, UsageError, "names no platform"),
        ({"/v1": (418, b"")}, NeedsPerson, "HTTP 418"),
        ({"/v1": (200, b"x" * (5 << 20))}, NeedsPerson, "more than 4 MiB"),
    ],
)
def test_what_a_registry_answers_is_told_by_its_kind(
    registry: OwnRegistry,
    environment: Environment,
    answers: dict[str, tuple[int, bytes]],
    kind: type[BatonError],
    said: str,
) -> None:
    registry.answers = answers
    assert re.search(said, refused(kind, f"{registry.host}/{NAME}:v1", environment).what)


def test_attestations_that_cannot_be_read_now_are_not_taken_for_missing_ones(
    registry: OwnRegistry, pusher: Pusher, environment: Environment
) -> None:
    image = pusher.image("v1")
    pusher.attach(image, SIGSTORE.attest(image["digest"]))
    registry.answers = {f"referrers/{image['digest']}": (503, b"")}
    refused(Transient, f"{registry.host}/{NAME}:v1", environment)


@pytest.mark.parametrize("referrers", [True, False])
@pytest.mark.parametrize("annotated", [True, False])
def test_a_list_of_all_packages_stands_in_nobodys_way_however_large(
    registry: OwnRegistry, pusher: Pusher, environment: Environment, referrers: bool, annotated: bool
) -> None:
    registry.referrers = referrers
    image = pusher.image("v1")
    spdx = "https://spdx.dev/Document/v2.3"
    for size in (10, 5 << 20):
        sbom = SIGSTORE.attest(image["digest"], predicate_type=spdx, predicate={"packages": "x" * size})
        pusher.attach(image, sbom, annotated=annotated)
    pusher.attach(image, SIGSTORE.attest(image["digest"]), annotated=annotated)
    assert pin_image(f"{registry.host}/{NAME}:v1", environment).image.endswith(image["digest"])


def test_each_attestation_is_read_once_and_not_without_end(
    registry: OwnRegistry, pusher: Pusher, environment: Environment
) -> None:
    image = pusher.image("v1")
    for attached, read in ((3, 3), (MOST_BUNDLES + 2, MOST_BUNDLES)):
        registry.referrers = False
        for _ in range(attached):
            pusher.attach(image, SIGSTORE.attest(GONE))
        registry.referrers = True  # listed both ways now
        registry.asked.clear()
        assert "does not hold" in refused(NeedsPerson, f"{registry.host}/{NAME}:v1", environment).what
        manifests = [path for _, path, _ in registry.asked if "/manifests/sha256:" in path]
        assert len(manifests) == len(set(manifests)) == read


def test_an_attestation_that_is_listed_and_was_deleted_counts_as_none(
    registry: OwnRegistry, pusher: Pusher, environment: Environment
) -> None:
    registry.referrers = False
    image = pusher.image("v1")
    pusher.attach(image, SIGSTORE.attest(image["digest"]))
    index = json.loads(registry.stored[f"/v2/{NAME}/manifests/{image['digest'].replace(':', '-')}"][1])
    del registry.stored[f"/v2/{NAME}/manifests/{index['manifests'][0]['digest']}"]
    given = f"{registry.host}/{NAME}:v1"
    assert "nothing attests who built it" in refused(NeedsPerson, given, environment).what
    pusher.attach(image, SIGSTORE.attest(image["digest"]))
    assert pin_image(given, environment).image.endswith(image["digest"])


def test_a_registry_that_sends_something_else_than_was_asked_for_is_not_believed(
    registry: OwnRegistry, pusher: Pusher, environment: Environment
) -> None:
    image = pusher.image("v1")
    pusher.attach(image, SIGSTORE.attest(image["digest"]))
    other = json.dumps({"config": {}}).encode()
    registry.answers = {image["digest"]: (200, other)}
    # a manifest: by digest that is no note, since somebody meddles with it
    assert "has another digest" in pin_image(f"{registry.host}/{NAME}@{image['digest']}", environment).known
    registry.answers = {path: (200, b"{}") for path in registry.stored if "/blobs/" in path}
    assert "has another digest" in refused(NeedsPerson, f"{registry.host}/{NAME}:v1", environment).what


def test_a_container_for_other_machines_is_refused(
    registry: OwnRegistry, pusher: Pusher, environment: Environment
) -> None:
    one, several = pusher.image("arm", ARM64), pusher.index("several", ARM64, ("windows", "amd64"))
    for given in (":arm", f"@{one['digest']}"):
        error = refused(UsageError, f"{registry.host}/{NAME}{given}", environment)
        assert "is for linux/arm64: VMs are linux/amd64" in error.what
        assert "docker build --platform linux/amd64" in error.fix
    for given in (":several", f"@{several['digest']}"):
        error = refused(UsageError, f"{registry.host}/{NAME}{given}", environment)
        assert "is for linux/arm64, windows/amd64: VMs" in error.what


def test_a_registry_that_lets_nobody_in_says_who_may_be_let_in(registry: OwnRegistry, environment: Environment) -> None:
    registry.wants_token = registry.refuses_everybody = True
    error = refused(NeedsPerson, f"{registry.host}/{NAME}:v1", environment)
    assert "no permission" in error.what
    assert "Make it public" in error.fix


@pytest.mark.parametrize(
    "challenge", ["", "Basic realm=x", "Bearer", "Bearer realm", 'Bearer realm="http://["', 'Bearer realm="ftp://x",a']
)
def test_a_way_to_log_in_that_is_not_understood_is_no_permission(
    registry: OwnRegistry, environment: Environment, challenge: str
) -> None:
    registry.challenge = challenge
    assert "no permission" in refused(NeedsPerson, f"{registry.host}/{NAME}:v1", environment).what


def test_a_registry_that_is_not_reached_is_worth_another_try(environment: Environment) -> None:
    assert NOBODY in refused(Transient, f"{NOBODY}/{NAME}:v1", environment).what
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(infra.registry.client, "ANSWER_S", 0.2)
            refused(Transient, f"{host}/{NAME}:v1", environment)


def test_without_a_signer_a_tag_is_refused_and_a_digest_is_not(
    registry: OwnRegistry, pusher: Pusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")  # no git, as in a container
    image = pusher.image("v1")
    error = refused(UsageError, f"{registry.host}/{NAME}:v1", Environment(_env_file=None))
    assert "BATON_IMAGE_SIGNER=OWNER/REPO" in error.fix
    assert registry.asked == []
    assert pin_image(f"{registry.host}/{NAME}@{image['digest']}", Environment(_env_file=None))


# --- digests ---------------------------------------------------------------------------------------------------------


def test_a_digest_is_looked_up_and_needs_no_attestation(
    registry: OwnRegistry, pusher: Pusher, environment: Environment
) -> None:
    given = f"{registry.host}/{NAME}@{pusher.image(None)['digest']}"
    found = pin_image(given, environment)
    assert found == Container(given, f"as given; {registry.host} has it, and who built it is yours to know")


def test_a_digest_that_is_not_there_is_refused_before_a_vm_is_paid_for(
    registry: OwnRegistry, environment: Environment
) -> None:
    error = refused(UsageError, f"{registry.host}/{NAME}@{GONE}", environment)
    assert f"{registry.host}/{NAME}@{GONE} is not in the registry (MANIFEST_UNKNOWN manifest unknown)." in error.what


def test_a_digest_that_cannot_be_looked_up_is_taken_and_said(registry: OwnRegistry, environment: Environment) -> None:
    given = f"{NOBODY}/{NAME}@{GONE}"
    found = pin_image(given, environment)
    assert found.image == given
    assert f"not looked up: the registry {NOBODY} cannot be reached" in found.known
    registry.wants_token = registry.refuses_everybody = True
    assert "not looked up: no permission" in pin_image(f"{registry.host}/{NAME}@{GONE}", environment).known


# --- who is trusted --------------------------------------------------------------------------------------------------


def test_who_is_trusted_is_named_by_repository_or_by_workflow() -> None:
    assert signer_of("me/baton") == Signer("me/baton", ".github/workflows/image.yaml")
    for given in ("me/baton/own.yml", "me/baton/.github/workflows/own.yml"):
        assert str(signer_of(given)) == "me/baton/.github/workflows/own.yml"
    for given in ("", "me", "https://github.com/me/baton", "me/baton/other/file.yaml", "me/baton@refs/heads/x"):
        with pytest.raises(UsageError, match="BATON_IMAGE_SIGNER"):
            signer_of(given)


@pytest.mark.parametrize(
    ("origin", "repository"),
    [
        ("https://github.com/me/baton.git\n", "me/baton"),
        ("https://token@github.com/me/baton", "me/baton"),
        ("git@github.com:me/baton.git", "me/baton"),
        ("ssh://git@github.com/me/my.baton.git", "me/my.baton"),
        ("https://notgithub.com/me/baton", None),
        ("https://evil.com/github.com/me/baton", None),
        ("https://evil.com@github.com.evil.com/me/baton", None),
        ("/srv/baton", None),
        ("", None),
    ],
)
def test_by_itself_a_clone_trusts_the_repository_that_it_came_from(origin: str, repository: str | None) -> None:
    assert repository_of(origin) == repository


# --- Google's registries ---------------------------------------------------------------------------------------------


def test_googles_credentials_go_to_the_registry_itself_and_to_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str | None]] = []
    monkeypatch.setattr(infra.registry.client, "google_token", lambda: "secret")

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append((str(request.url), request.headers.get("Authorization")))
        if request.url.path == "/token":
            return httpx.Response(200, json={"token": "for one repository"})
        if request.headers.get("Authorization") is None:
            return httpx.Response(401, headers={"WWW-Authenticate": f'Bearer realm="{realm}",service="s"'})
        return httpx.Response(200, json={"manifests": []})

    def find(host: str) -> list[tuple[str, str | None]]:
        asked.clear()
        found = Registry(parse_reference(f"{host}/p/r/train:v1", "BATON_IMAGE"))
        found._client = httpx.Client(base_url=found.reference.url, transport=httpx.MockTransport(answer))
        with found, contextlib.suppress(BatonError):
            found.find()
        return list(asked)

    google = "us-docker.pkg.dev"
    manifest = f"https://{google}/v2/p/r/train/manifests/v1"
    realm = f"https://{google}/token"
    token = f"{realm}?scope=repository%3Ap%2Fr%2Ftrain%3Apull&service=s"
    basic = f"Basic {base64.b64encode(b'oauth2accesstoken:secret').decode()}"
    assert find(google) == [(manifest, None), (token, basic), (manifest, "Bearer for one repository")]
    realm = "https://evil.com/token"
    assert basic not in [said for _, said in find(google)]
    realm = "http://us-docker.pkg.dev/token"
    assert find(google) == [(manifest, None)]
    realm = "https://ghcr.io/token"
    assert basic not in [said for _, said in find("ghcr.io")]


# --- a registry of somebody else's -----------------------------------------------------------------------------------


@pytest.fixture
def debians(tmp_path: Path) -> Iterator[str]:
    """Debian's docker-registry, which knows no referrers; its host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    config = tmp_path / "registry.yml"
    storage = f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'data'}}}}}"
    config.write_text(f"version: 0.1\nlog: {{level: error}}\n{storage}\nhttp: {{addr: {host}}}\n")
    program = shutil.which("docker-registry")
    assert program is not None
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        wait_for(lambda: httpx.get(f"http://{host}/v2/", trust_env=False).status_code == 200)
        yield host
    finally:
        process.terminate()
        process.wait()


def wait_for(is_up: Callable[[], bool]) -> None:
    waiting = threading.Event()
    for _ in range(200):
        with contextlib.suppress(httpx.HTTPError):
            if is_up():
                return
        waiting.wait(0.05)
    raise AssertionError("the registry did not come up")


@pytest.mark.needs_system("docker-registry")
def test_debians_registry_is_understood(debians: str, environment: Environment) -> None:
    pusher = Pusher(debians, NAME)
    image, index = pusher.image("v1"), pusher.index("v2", AMD64, ARM64)
    for one in (image, index):
        pusher.attach(one, SIGSTORE.attest(one["digest"], predicate_type="https://spdx.dev/Document/v2.3"))
        pusher.attach(one, SIGSTORE.attest(one["digest"]))
    pusher.image("unattested", words="another")
    pusher.image("arm", ARM64)
    assert pin_image(f"{debians}/{NAME}:v1", environment).image == f"{debians}/{NAME}@{image['digest']}"
    assert pin_image(f"{debians}/{NAME}:v2", environment).image == f"{debians}/{NAME}@{index['digest']}"
    assert "has it" in pin_image(f"{debians}/{NAME}@{index['digest']}", environment).known
    assert "nothing attests" in refused(NeedsPerson, f"{debians}/{NAME}:unattested", environment).what
    assert "is for linux/arm64" in refused(UsageError, f"{debians}/{NAME}:arm", environment).what
    for gone in (f"{NAME}:v3", f"{NAME}@{GONE}", "p/other:v1"):
        assert "is not in the registry" in refused(UsageError, f"{debians}/{gone}", environment).what
