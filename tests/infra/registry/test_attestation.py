"""Who built a container is known only by a genuine attestation: every part of one that is another's is noticed.

The bundles are signed by a Sigstore of the tests' own and read by the sigstore library.
"""

import base64
import copy
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sigstore.verify import Verifier

from infra.registry.attestation import open_verifier, verify
from infra.registry.signer import Build, Signer
from job.errors import NeedsPerson, Transient, UsageError
from tests.infra.registry.own_sigstore import NOW, Identity, OwnSigstore, of

DIGEST, OTHER = f"sha256:{'ab' * 32}", f"sha256:{'cd' * 32}"
ME = Signer("me/baton")
SIGSTORE = OwnSigstore()
Bundle = dict[str, Any]


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Verifier:
    path = tmp_path_factory.mktemp("trust") / "trusted_root.json"
    path.write_text(SIGSTORE.trust_root())
    return open_verifier(path)


def check(verifier: Verifier, *bundles: Bundle, digest: str = DIGEST) -> Build:
    return verify([json.dumps(bundle).encode() for bundle in bundles], "host/train:v1", digest, ME, verifier)


def refusal(verifier: Verifier, *bundles: Bundle) -> str:
    with pytest.raises(NeedsPerson) as refused:
        check(verifier, *bundles)
    assert "\n" not in refused.value.what
    assert "by its digest" in refused.value.fix
    return refused.value.what


def test_a_genuine_attestation_tells_who_built_it_from_what(verifier: Verifier) -> None:
    build = check(verifier, SIGSTORE.attest(DIGEST))
    assert build.workflow == "https://github.com/me/baton/.github/workflows/image.yaml@refs/tags/v1.0"
    assert (build.repository, build.ref) == ("https://github.com/me/baton", "refs/tags/v1.0")
    assert str(build) == "me/baton/.github/workflows/image.yaml@refs/tags/v1.0, commit c0ffeec0ffee"


def test_main_may_build_as_well(verifier: Verifier) -> None:
    main = of(ref="refs/heads/main", workflow_ref="refs/heads/main")
    assert check(verifier, SIGSTORE.attest(DIGEST, main)).ref == "refs/heads/main"


def test_a_release_may_call_the_workflow_of_the_image_and_each_counts_with_its_own_ref(verifier: Verifier) -> None:
    assert check(verifier, SIGSTORE.attest(DIGEST, of(workflow_ref="refs/heads/main"))).ref == "refs/tags/v1.0"


@pytest.mark.parametrize(
    ("identity", "said"),
    [
        (of(repository="evil/baton", workflow="evil/baton/.github/workflows/image.yaml"), "not by me/baton"),
        (of(repository="evil/baton"), "built from https://github.com/evil/baton, which only calls the workflow"),
        (
            of(workflow="me/baton/.github/workflows/ci.yaml"),
            "signed by https://github.com/me/baton/.github/workflows/ci",
        ),
        (of(workflow="me/baton/.github/workflows/image.yaml.evil"), "not by me/baton"),
        (of(workflow_ref="refs/pull/7/merge", ref="refs/pull/7/merge"), "refs/pull/7/merge, which is neither"),
        (of(ref="refs/heads/try"), "refs/heads/try, which is neither main nor a tag"),
        (of(workflow_ref="refs/heads/try"), "refs/heads/try, which is neither main nor a tag"),
        (of(issuer="https://accounts.google.com"), "accounts.google.com"),
        (of(repository=""), "built from https://github.com/,"),
    ],
)
def test_what_somebody_else_signed_is_refused_and_named(verifier: Verifier, identity: Identity, said: str) -> None:
    assert said in refusal(verifier, SIGSTORE.attest(DIGEST, identity))


def test_an_attestation_of_another_digest_says_nothing_about_this_one(verifier: Verifier) -> None:
    assert f"it is about something else than {DIGEST}" in refusal(verifier, SIGSTORE.attest(OTHER))


def test_another_sigstore_is_not_believed(verifier: Verifier) -> None:
    assert "does not hold" in refusal(verifier, OwnSigstore().attest(DIGEST))


def test_without_provenance_nothing_is_attested(verifier: Verifier) -> None:
    assert "nothing attests who built it" in refusal(verifier)
    sbom = SIGSTORE.attest(DIGEST, predicate_type="https://spdx.dev/Document/v2.3")
    assert "nothing attests who built it" in refusal(verifier, sbom)


def test_what_is_signed_as_something_else_than_a_statement_says_nothing(verifier: Verifier) -> None:
    assert "no statement but text/plain" in refusal(verifier, SIGSTORE.attest(DIGEST, kind="text/plain"))


def test_one_attestation_that_holds_is_enough_wherever_it_stands(verifier: Verifier) -> None:
    others = [SIGSTORE.attest(OTHER), {"mediaType": "nonsense"}, OwnSigstore().attest(DIGEST)]
    assert check(verifier, *others, SIGSTORE.attest(DIGEST)).repository == "https://github.com/me/baton"


def test_a_certificate_that_had_expired_when_it_signed_is_refused(verifier: Verifier) -> None:
    late = SIGSTORE.attest(DIGEST, certified_at=NOW - timedelta(hours=2), signed_at=NOW)
    assert "certificate" in refusal(verifier, late)
    assert check(verifier, SIGSTORE.attest(DIGEST, certified_at=NOW, signed_at=NOW + timedelta(minutes=9)))


def statement_of(bundle: Bundle) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    return found


def another_statement(bundle: Bundle) -> None:
    statement = statement_of(bundle)
    statement["predicate"]["more"] = "words"
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()


def another_signature(bundle: Bundle) -> None:
    bundle["dsseEnvelope"]["signatures"] = SIGSTORE.attest(DIGEST)["dsseEnvelope"]["signatures"]


def another_certificate(bundle: Bundle) -> None:
    bundle["verificationMaterial"]["certificate"] = SIGSTORE.attest(DIGEST)["verificationMaterial"]["certificate"]


def another_log_entry(bundle: Bundle) -> None:
    bundle["verificationMaterial"]["tlogEntries"] = SIGSTORE.attest(DIGEST)["verificationMaterial"]["tlogEntries"]


def no_log_entry(bundle: Bundle) -> None:
    bundle["verificationMaterial"]["tlogEntries"] = []


def another_time(bundle: Bundle) -> None:
    (entry,) = bundle["verificationMaterial"]["tlogEntries"]
    entry["integratedTime"] = str(int(entry["integratedTime"]) + 1)


def no_time(bundle: Bundle) -> None:
    (entry,) = bundle["verificationMaterial"]["tlogEntries"]
    del entry["inclusionPromise"]


def another_checkpoint(bundle: Bundle) -> None:
    (entry,) = bundle["verificationMaterial"]["tlogEntries"]
    (other,) = SIGSTORE.attest(OTHER)["verificationMaterial"]["tlogEntries"]
    entry["inclusionProof"]["checkpoint"] = other["inclusionProof"]["checkpoint"]


def another_kind_of_payload(bundle: Bundle) -> None:
    bundle["dsseEnvelope"]["payloadType"] = "text/plain"


@pytest.mark.parametrize(
    "change",
    [
        another_statement,
        another_signature,
        another_certificate,
        another_log_entry,
        no_log_entry,
        another_time,
        no_time,
        another_checkpoint,
        another_kind_of_payload,
    ],
)
def test_a_bundle_with_one_part_of_another_is_refused(verifier: Verifier, change: Callable[[Bundle], None]) -> None:
    bundle = SIGSTORE.attest(DIGEST)
    assert check(verifier, bundle)
    change(bundle)
    assert "does not hold" in refusal(verifier, bundle)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a JSON document."""
    if isinstance(value, dict):
        return [path, *(leaf for key, inner in value.items() for leaf in leaves(inner, (*path, key)))]
    if isinstance(value, list):
        return [path, *(leaf for number, inner in enumerate(value) for leaf in leaves(inner, (*path, number)))]
    return [path]


GENUINE = SIGSTORE.attest(DIGEST)
JSON = st.none() | st.booleans() | st.integers() | st.text() | st.just([]) | st.just({}) | st.just([{}])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=st.sampled_from([path for path in leaves(GENUINE) if path]), value=JSON)
def test_no_bundle_with_a_changed_value_is_believed_and_none_is_a_bug(
    verifier: Verifier, path: tuple[Any, ...], value: Any
) -> None:
    bundle = copy.deepcopy(GENUINE)
    place = bundle
    for key in path[:-1]:
        place = place[key]
    if place[path[-1]] == value:
        return
    place[path[-1]] = value
    with pytest.raises(NeedsPerson):
        check(verifier, bundle)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{}", b'{"dsseEnvelope": 7}', b"\xff\xfe"])
def test_what_is_no_bundle_is_refused_in_one_line(verifier: Verifier, raw: bytes) -> None:
    with pytest.raises(NeedsPerson, match="does not hold") as refused:
        verify([raw], "host/train:v1", DIGEST, ME, verifier)
    assert "\n" not in refused.value.what


def test_a_trust_root_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "trusted_root.json"
    for text in (None, "", "{}", "[]", '{"mediaType": "nonsense"}'):
        if text is not None:
            path.write_text(text)
        with pytest.raises(UsageError, match=r"BATON_IMAGE_TRUST_ROOT: .*trusted_root.json is no trust root"):
            open_verifier(path)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Sigstore's keys are kept, and no network."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    return tmp_path


def test_without_a_network_sigstores_keys_are_worth_another_try(home: Path) -> None:
    with pytest.raises(Transient, match="Sigstore's keys cannot be fetched: Failed to download https") as refused:
        open_verifier(None)
    assert "NAME@sha256:" in refused.value.fix
    assert "\n" not in refused.value.what


@pytest.mark.parametrize("folder", ["data", "cache"])
def test_keys_that_cannot_be_kept_say_where_they_go(home: Path, folder: str) -> None:
    (home / folder).write_text("not a folder")
    with pytest.raises(NeedsPerson, match="cannot be kept") as refused:
        open_verifier(None)
    assert "XDG_DATA_HOME" in refused.value.fix
