"""What a registry has: a container's manifest, the platforms it is for, what is attached to it. Read only.

Four requests of the OCI distribution API (v1.1), hence no library: those on PyPI know no referrers, and draw in more
than this file is. Whatever a registry sends is held against the digest that it was asked for.
"""

import base64
import hashlib
import json
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from infra.registry.reference import DIGEST, Reference
from job.errors import BatonError, NeedsPerson, Transient, UsageError

PLATFORM = "linux/amd64"
BUNDLE = "application/vnd.dev.sigstore.bundle"
PREDICATE = "dev.sigstore.bundle.predicateType"
"""The annotation by which cosign and actions/attest tell what a bundle is about."""
ANSWER_S = 20.0
LARGEST_BYTES = 4 << 20  # the specification's own limit for manifests; a provenance has some 20 kB
MOST_BUNDLES = 20
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")


@dataclass(frozen=True)
class Answer:
    """A reply, read to its end."""

    status: int
    headers: httpx.Headers
    body: bytes


@dataclass(frozen=True)
class Found:
    """A container that is there."""

    digest: str
    platforms: tuple[str, ...]


class Registry:
    """The registry of one container. Its methods raise UsageError (not there), NeedsPerson (no permission, or an answer
    that makes no sense) and Transient (not to be reached)."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self._client = httpx.Client(
            base_url=reference.url,
            timeout=ANSWER_S,
            follow_redirects=True,  # blobs are elsewhere; the authorization does not go along
            trust_env=not reference.is_loopback,
        )
        self._authorization: str | None = None

    def __enter__(self) -> "Registry":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def find(self) -> Found:
        """The container: its digest, by the bytes of its manifest, and what it can run on."""
        body = self._read("manifests", self.reference.wanted, ", ".join((*_INDEXES, *_MANIFESTS)))
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        manifest = self._parsed(body)
        if "manifests" in manifest:
            platforms = tuple(_platform(one.get("platform")) for one in _dicts(manifest, "manifests"))
        else:
            config = str(_dict(manifest, "config").get("digest"))
            platforms = (_platform(self._parsed(self._read("blobs", config, "*/*"))),)
        return Found(digest, tuple(dict.fromkeys(one for one in platforms if one != "unknown/unknown")))

    def bundles(self, digest: str, predicate: str) -> Iterator[bytes]:
        """The Sigstore bundles that are attached to that digest, but for those that say to be about something else than
        `predicate`, and those larger than any provenance: a list of all packages has megabytes.

        By the referrers API, and by the tag that stands for it where a registry has none (ghcr.io, Artifact Registry).
        """
        seen: set[str] = set()
        for index in (f"referrers/{digest}", f"manifests/{digest.replace(':', '-')}"):
            answer = self._ask(f"/v2/{self.reference.name}/{index}", _INDEXES[0])
            if answer.status >= 500 or answer.status == 429:
                raise self._refusal(answer)
            if answer.status != 200:
                continue
            for one in _dicts(self._parsed(answer.body), "manifests"):
                attached = str(one.get("digest"))
                if not str(one.get("artifactType")).startswith(BUNDLE) or attached in seen or _is_other(one, predicate):
                    continue
                if len(seen) == MOST_BUNDLES:
                    return
                seen.add(attached)
                try:
                    yield from self._bundles_of(attached, predicate)
                except UsageError:
                    continue  # listed still, and deleted since

    def _bundles_of(self, attached: str, predicate: str) -> Iterator[bytes]:
        manifest = self._parsed(self._read("manifests", attached, _MANIFESTS[0]))
        for layer in _dicts(manifest, "layers") if not _is_other(manifest, predicate) else ():
            size = layer.get("size")
            if str(layer.get("mediaType")).startswith(BUNDLE) and isinstance(size, int) and size <= LARGEST_BYTES:
                yield self._read("blobs", str(layer.get("digest")), "*/*")

    def _read(self, kind: str, wanted: str, accept: str) -> bytes:
        """A manifest or a blob; by a digest it is what that digest names."""
        is_digest = DIGEST.fullmatch(wanted) is not None
        if not is_digest and wanted != self.reference.tag:  # a registry's words go into no path unread
            raise self._nonsense(f"it names something by {wanted[:80]!r}")
        answer = self._ask(f"/v2/{self.reference.name}/{kind}/{wanted}", accept)
        if answer.status != 200:
            raise self._refusal(answer)
        if is_digest and wanted != f"sha256:{hashlib.sha256(answer.body).hexdigest()}":
            raise self._nonsense(f"what it sends as {wanted} has another digest")
        return answer.body

    def _ask(self, path: str, accept: str) -> Answer:
        """The reply, with a token where the registry wants one."""
        answer = self._send(path, {"Accept": accept})
        if answer.status == 401 and self._authorization is None:
            self._authorization = self._log_in(answer.headers.get("WWW-Authenticate", ""))
            if self._authorization is not None:
                answer = self._send(path, {"Accept": accept})
        return answer

    def _send(self, url: str, headers: dict[str, str], params: dict[str, str] | None = None) -> Answer:
        allowed = {"Authorization": self._authorization} if self._authorization else {}
        body = bytearray()
        try:
            headers = {"Accept-Encoding": "identity", **allowed, **headers}
            with self._client.stream("GET", url, headers=headers, params=params) as reply:
                for chunk in reply.iter_bytes():
                    body += chunk
                    if len(body) > LARGEST_BYTES:
                        raise self._nonsense(f"an answer of more than {LARGEST_BYTES >> 20} MiB")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise Transient(
                f"the registry {self.reference.host} cannot be reached: {said}.",
                fix="Try again; or look at the host's name and at this machine's network.",
            ) from None
        return Answer(reply.status_code, reply.headers, bytes(body))

    def _log_in(self, challenge: str) -> str | None:
        """The authorization that the challenge asks for; None where there is none to be had here.

        Google's credentials are shown to Google's registries only, and only where they ask themselves.
        """
        scheme, _, rest = challenge.partition(" ")
        pairs = [pair for pair in urllib.request.parse_http_list(rest) if "=" in pair]
        said = urllib.request.parse_keqv_list(pairs)
        try:
            realm = urlsplit(said.get("realm", ""))
        except ValueError:
            return None
        if scheme.lower() != "bearer" or realm.scheme != urlsplit(self.reference.url).scheme:
            return None
        headers = {}
        if self.reference.is_google and realm.netloc == self.reference.host and (token := google_token()) is not None:
            headers["Authorization"] = f"Basic {base64.b64encode(f'oauth2accesstoken:{token}'.encode()).decode()}"
        scope = {"scope": f"repository:{self.reference.name}:pull"} | {k: said[k] for k in ("service",) if k in said}
        answer = self._send(said["realm"], headers, scope)
        if answer.status != 200:
            raise self._refusal(answer)
        found = self._parsed(answer.body)
        return f"Bearer {found.get('token') or found.get('access_token')}"

    def _refusal(self, answer: Answer) -> BatonError:
        """The error to raise for a status that is not 200."""
        host, said = self.reference.host, _said(answer)
        if answer.status == 404:
            return UsageError(
                f"{self.reference} is not in the registry{said}.",
                fix=f"Look what there is, and at the spelling; the registry asked is {host}.",
            )
        if answer.status in (401, 403):
            return NeedsPerson(
                f"no permission to look at {self.reference}, or it is not there{said}.",
                fix=_how_to_be_let_in(self.reference),
            )
        if answer.status >= 500 or answer.status in (408, 429):
            return Transient(f"the registry {host} does not answer now{said}.", fix="Try again in a minute.")
        return self._nonsense(f"it answers HTTP {answer.status}{said}")

    def _parsed(self, body: bytes) -> dict[str, Any]:
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            raise self._nonsense("its answer is not JSON") from None
        if not isinstance(found, dict):
            raise self._nonsense("its answer is no manifest")
        return found

    def _nonsense(self, what: str) -> NeedsPerson:
        return NeedsPerson(
            f"{self.reference}: the answer of {self.reference.host} cannot be used: {what}.",
            fix="Look whether a registry answers there, and whether this is a container.",
        )


def google_token() -> str | None:
    """A token of whoever is logged in to Google Cloud here; None where nobody is."""
    import google.auth
    import google.auth.transport.requests

    try:
        credentials = google.auth.default(scopes=["https://www.googleapis.com/auth/cloud-platform"])[0]
        credentials.refresh(google.auth.transport.requests.Request())
    except google.auth.exceptions.GoogleAuthError:
        return None
    return str(credentials.token)


def _how_to_be_let_in(reference: Reference) -> str:
    if reference.is_google:
        return (
            "gcloud auth application-default login; you and the VMs' account need roles/artifactregistry.reader on the "
            "repository."
        )
    return "Make it public: here and on VMs nobody logs in to other registries than Google's."


def _said(answer: Answer) -> str:
    """The first error in the registry's own words, ready to stand behind a sentence."""
    try:
        first = json.loads(answer.body)["errors"][0]
        words = " ".join(f"{first.get('code', '')} {first.get('message', '')}".split())[:200]
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
    return f" ({words})" if words else ""


def _platform(given: object) -> str:
    """`os/architecture`, of an index's entry or of a config, which name them alike."""
    found = given if isinstance(given, dict) else {}
    return f"{found.get('os', 'unknown')}/{found.get('architecture', 'unknown')}"


def _is_other(annotated: Mapping[str, Any], predicate: str) -> bool:
    """Whether a manifest, or who lists it, says to be about something else."""
    return bool(_dict(annotated, "annotations").get(PREDICATE, predicate) != predicate)


def _dict(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = parent.get(key)
    return found if isinstance(found, dict) else {}


def _dicts(parent: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    found = parent.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
