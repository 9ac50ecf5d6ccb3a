"""Google's APIs beside Compute Engine's VMs, read over REST: a resource, None where there is none, or NotKnown.

Where each is, gcloud's own variables say (CLOUDSDK_API_ENDPOINT_OVERRIDES_...). With Compute Engine elsewhere, nothing
is asked of Google: a local cloud's project is not one of Google's.
"""

import threading
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import google.oauth2.credentials
import requests
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, TransportError
from google.auth.transport.requests import AuthorizedSession, Request

from infra.cloud.words import LOGIN
from infra.compute import find_credentials
from infra.doctor.finding import NotKnown
from job.storage.gcs_session import endpoint as storage_endpoint

PREFIXES = {
    "artifactregistry": "/v1",
    "cloudbilling": "/v1",
    "cloudresourcemanager": "/v1",
    "compute": "/compute/v1",
    "iam": "/v1",
    "secretmanager": "/v1",
    "serviceusage": "/v1",
    "storage": "/storage/v1",
}
"""Service to what its paths begin with."""
OVERRIDES = "CLOUDSDK_API_ENDPOINT_OVERRIDES_"
ANSWER_S = 3.0  # for one reply
CONNECTIONS = 32  # that are kept for the next request
MOST_PAGES = 20


class Google:
    """The APIs, asked with the rights of whoever calls. Safe to use from several threads."""

    def __init__(self, project: str, environment: Mapping[str, str]) -> None:
        self._project = project
        self._environment = environment
        self._lock = threading.Lock()
        self._sessions: dict[bool, AuthorizedSession | NotKnown] = {}

    def get(self, service: str, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The resource, None where there is none. Raises NotKnown."""
        return self._ask("GET", service, path, query, None)

    def post(self, service: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The answer to a question that is put so (getIamPolicy), None where there is nothing. Raises NotKnown."""
        return self._ask("POST", service, path, None, body or {})

    def pages(self, service: str, path: str, query: Mapping[str, str]) -> Iterator[Any]:
        """A list, page by page. Raises NotKnown."""
        token = ""
        for _ in range(MOST_PAGES):
            page = self.get(service, path, {**query, **({"pageToken": token} if token else {})})
            if page is None:
                return
            yield page
            if not (token := page.get("nextPageToken", "")):
                return
        raise NotKnown(f"{service} has more than {MOST_PAGES} pages of {path}")

    def who(self) -> str:
        """The account whose rights are used, as far as its credentials tell. Raises NotKnown."""
        session = self._session(self.address("cloudresourcemanager"))
        found = session.credentials
        named = getattr(found, "service_account_email", "") or getattr(found, "account", "")
        if named and named != "default":
            return str(named)
        return "a person's login" if isinstance(found, google.oauth2.credentials.Credentials) else "this machine's own"

    def address(self, service: str) -> str:
        """Where the service is: scheme, host and port. Raises NotKnown."""
        given = self._environment.get(f"{OVERRIDES}{service.upper()}", "")
        if given:
            parts = urlsplit(given)
            return f"{parts.scheme}://{parts.netloc}"
        if service == "storage" and (emulator := self._environment.get("STORAGE_EMULATOR_HOST")):
            return storage_endpoint(emulator)[0]
        if elsewhere := self._environment.get(f"{OVERRIDES}COMPUTE"):
            raise NotKnown(f"the cloud at {urlsplit(elsewhere).netloc} has no {service}")
        return f"https://{service}.googleapis.com"

    def _ask(
        self, method: str, service: str, path: str, query: Mapping[str, str] | None, body: Mapping[str, Any] | None
    ) -> Any:
        at = self.address(service)
        session = self._session(at)
        try:
            reply = session.request(
                method, f"{at}{PREFIXES[service]}/{path}", params=query, json=body, timeout=ANSWER_S
            )
            found = reply.json() if reply.content else {}
        except (requests.exceptions.ConnectionError, requests.exceptions.Timeout, TransportError) as error:
            raise NotKnown(f"{service} does not answer: {type(error).__name__}") from None
        except GoogleAuthError:
            raise NotKnown(f"{service} refuses the credentials", LOGIN) from None
        except ValueError:
            raise NotKnown(f"{service}: what {urlsplit(at).netloc} answers is not JSON") from None
        if reply.status_code == 200:
            return found
        if reply.status_code == 404:
            return None
        raise refusal(service, reply.status_code, found, self._project)

    def _session(self, at: str) -> AuthorizedSession:
        """With a token that is good; made once for Google, and once for elsewhere. Raises NotKnown."""
        of_google = urlsplit(at).scheme == "https"
        with self._lock:
            if of_google not in self._sessions:
                self._sessions[of_google] = self._open(at, of_google=of_google)
            found = self._sessions[of_google]
        if isinstance(found, NotKnown):
            raise NotKnown(found.why, found.fix)
        return found

    def _open(self, at: str, *, of_google: bool) -> AuthorizedSession | NotKnown:
        ask = partial(Request(), timeout=ANSWER_S)
        try:
            credentials = find_credentials(at, self._environment)
            if isinstance(credentials, google.oauth2.credentials.Credentials):
                credentials = credentials.with_quota_project(self._project)  # else a person's calls count as gcloud's
            if not credentials.valid:
                credentials.refresh(ask)
        except DefaultCredentialsError:
            return NotKnown("there are no credentials", LOGIN)
        except GoogleAuthError as error:
            return NotKnown(f"the credentials are refused: {' '.join(str(error).split())[:120]}", LOGIN)
        session = AuthorizedSession(credentials)
        adapter = requests.adapters.HTTPAdapter(pool_maxsize=CONNECTIONS)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        session.trust_env = of_google  # a proxy is not the way to one's own machine
        return session


def refusal(service: str, status: int, said: Any, project: str) -> NotKnown:
    """What a status that is no answer means; pure."""
    error = said.get("error", {}) if isinstance(said, dict) else {}
    message = " ".join(str(error.get("message", "")).split())[:160].rstrip(".") if isinstance(error, dict) else ""
    words = f"{service} says {status}" + (f": {message}" if message else "")
    text = str(said)
    if status == 403 and ("SERVICE_DISABLED" in text or "accessNotConfigured" in text):
        return NotKnown(
            f"{service}.googleapis.com is not enabled",
            f"gcloud services enable {service}.googleapis.com --project={project}",
        )
    if status == 401:
        return NotKnown(words, LOGIN)
    if status == 403:
        return NotKnown(words, may_look(project))
    return NotKnown(words)


def may_look(project: str) -> str:
    """What an owner of the project grants so that one may look."""
    member = '--member="user:$(gcloud config get account)"'
    return "\n".join(
        f"gcloud projects add-iam-policy-binding {project} {member} --role={role} --condition=None"
        for role in ("roles/viewer", "roles/iam.securityReviewer")
    )
