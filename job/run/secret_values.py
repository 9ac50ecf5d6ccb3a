"""Secrets of a run on VMs: the spec names versions in Secret Manager, the attempt reads them with its VM's own rights.

What travels is names: in spec, metadata and logs there is no value, and none is written anywhere from here.
"""

import base64
import os
from collections.abc import Mapping
from typing import Any

import google.auth
import google_crc32c
import requests
from google.auth.compute_engine import Credentials as MachineCredentials
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError
from google.auth.transport.requests import AuthorizedSession
from pydantic import SecretStr

from job.errors import BatonError, NeedsPerson, Transient

SERVICE = "https://secretmanager.googleapis.com"
OVERRIDE = "CLOUDSDK_API_ENDPOINT_OVERRIDES_SECRETMANAGER"
"""gcloud's own variable."""
SCOPE = "https://www.googleapis.com/auth/cloud-platform"
ANSWER_S = 20.0
TRIES = 3


def read_secrets(versions: Mapping[str, str], env: Mapping[str, str] | None = None) -> dict[str, SecretStr]:
    """The values, by the variable that each is for; what the environment has already is not asked for.

    Raises NeedsPerson (no right, no such version, no credentials) or Transient.
    """
    env = os.environ if env is None else env
    asked = {name: version for name, version in versions.items() if not env.get(name)}
    if not asked:
        return {}
    at = (env.get(OVERRIDE) or SERVICE).rstrip("/")
    with AuthorizedSession(_credentials(at, env)) as session:
        session.trust_env = at == SERVICE  # a proxy is not the way to one's own machine
        return {name: _read(session, at, name, version) for name, version in asked.items()}


def _read(session: Any, at: str, name: str, version: str) -> SecretStr:
    for left in reversed(range(TRIES)):
        try:
            reply = session.get(f"{at}/v1/{version}:access", timeout=ANSWER_S)
        except (requests.RequestException, GoogleAuthError) as error:
            if left:
                continue
            raise Transient(f"{name} could not be read from Secret Manager: {type(error).__name__}.") from None
        if reply.status_code < 500 and reply.status_code != 429:
            break
    if reply.status_code != 200:
        raise _refusal(name, version, reply.status_code)
    payload = reply.json()["payload"]
    data = base64.b64decode(payload["data"])
    if int(payload.get("dataCrc32c", google_crc32c.value(data))) != google_crc32c.value(data):
        raise Transient(f"{name} came damaged from Secret Manager.")
    return SecretStr(data.decode().strip())


def _refusal(name: str, version: str, status: int) -> BatonError:
    """What a status means. The service's own words are left out: nobody has promised what is in them."""
    secret = version.partition("/versions/")[0]
    project, short = secret.split("/")[1], secret.rpartition("/")[2]
    if status in (401, 403):
        return NeedsPerson(
            f"{name}: this machine's account may not read {version} (HTTP {status}).",
            fix=f"gcloud secrets add-iam-policy-binding {short} --project={project} "
            f"--member=serviceAccount:baton-vm@{project}.iam.gserviceaccount.com "
            "--role=roles/secretmanager.secretAccessor",
        )
    if status in (400, 404):
        return NeedsPerson(
            f"{name}: {version} is not there, or was disabled or destroyed (HTTP {status}).",
            fix=f"Name another version in BATON_SECRET_{name}, then: baton resume RUN",
        )
    return Transient(f"{name}: Secret Manager answers {status}.", fix="Try again later.")


def _credentials(at: str, env: Mapping[str, str]) -> Any:
    """Whose rights are used: a person's own login is shown to Google only."""
    if at != SERVICE and not env.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return MachineCredentials(scopes=[SCOPE]) if env.get("GCE_METADATA_HOST") else AnonymousCredentials()
    try:
        return google.auth.default(scopes=[SCOPE])[0]
    except DefaultCredentialsError:
        raise NeedsPerson(
            "the run's secrets are in Secret Manager, and there are no credentials here.",
            fix="gcloud auth application-default login; or set HF_TOKEN and the like in the environment.",
        ) from None
