"""What a failing request to Cloud Storage means: its class decides what happens next, its words what a person does."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import requests
import urllib3.exceptions
from google.api_core.exceptions import GoogleAPICallError
from google.auth import exceptions as auth

from job.errors import BatonError, NeedsPerson, Transient, UsageError
from job.storage import NotFound, PreconditionFailed

Verb = Literal["read", "write", "list", "delete"]
PERMISSIONS: Mapping[Verb, str] = {
    "read": "storage.objects.get",
    "write": "storage.objects.create (and storage.objects.delete, to overwrite)",
    "list": "storage.objects.list",
    "delete": "storage.objects.delete",
}
RATE_REASONS = ("rateLimitExceeded", "userRateLimitExceeded")
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)
"""How a connection fails, whichever layer notices it."""
LONGEST_WORDS = 300


@dataclass(frozen=True)
class Asked:
    """What was asked for."""

    verb: Verb
    bucket: str
    name: str
    account: str
    """Whose credentials they are, as far as they tell."""
    trusted: bool
    """The service has accepted these credentials before: a refusal of them now may pass."""

    @property
    def uri(self) -> str:
        """The object's, for a person."""
        return f"gs://{self.bucket}/{self.name}"


@contextlib.contextmanager
def explained(asked: Asked) -> Iterator[None]:
    """Turns what the libraries raise into our errors."""
    try:
        yield
    except GoogleAPICallError as error:
        text = error.response.text if isinstance(error.response, requests.Response) else error.message
        raise for_status(int(error.code or 0), text, asked) from error
    except auth.GoogleAuthError as error:
        raise for_credentials(error, asked) from error
    except BROKEN as error:
        raise for_connection(error, asked) from error


def for_status(status: int, text: str, asked: Asked) -> Exception:
    """What an answer other than success means; pure."""
    words, reason = _words(text)
    answer = f"{asked.uri}: the service answers {status}{f' ({words})' if words else ''}."
    low = words.lower()
    match status:
        case 404 if "no such object" in low or (asked.verb in ("read", "delete") and "bucket" not in low):
            if asked.verb == "write":  # of a composition: the name itself need not exist
                return Transient(f"{asked.uri}: a part of it was deleted while it was written.", fix="Try again.")
            return NotFound(asked.name)
        case 404:
            return NeedsPerson(
                f"the bucket gs://{asked.bucket} does not exist.",
                fix=f"Check its name, or make it where the machines will be: gcloud storage buckets create "
                f"gs://{asked.bucket} --location=REGION --uniform-bucket-level-access",
            )
        case 412:
            return PreconditionFailed(f"{asked.uri} has another generation")
        case 401:
            return _credentials(f"the service does not accept the credentials{asked.account} (401)", asked)
        case 403 if reason in RATE_REASONS:
            return Transient(answer, fix="Too many requests at once; try again later.")
        case 403:
            return _forbidden(words, asked)
        case 400 if "crc32c" in low or "checksum" in low:
            return Transient(f"{asked.uri}: the bytes that arrived were not those that were sent.", fix="Try again.")
        case _ if status in (408, 429) or status >= 500:
            return Transient(answer, fix="The service has trouble or is busy; try again later.")
    return NeedsPerson(answer, fix="The same request will be refused again: check the bucket and its settings.")


def _forbidden(words: str, asked: Asked) -> BatonError:
    low = words.lower()
    if "billing" in low or ("account" in low and "disabled" in low):
        return NeedsPerson(
            f"gs://{asked.bucket}: the project cannot be billed ({words}).",
            fix="Mend the project's billing: https://console.cloud.google.com/billing",
        )
    if "quota project" in low or "serviceusage" in low:
        return NeedsPerson(
            f"gs://{asked.bucket}: the credentials{asked.account} name a project that they may not use ({words}).",
            fix="Name another one: gcloud auth application-default set-quota-project PROJECT",
        )
    denied = words if "access" in low else f"{PERMISSIONS[asked.verb]} is missing{asked.account}"
    return NeedsPerson(
        f"{asked.uri}: permission denied: {denied}.",
        fix=f"gcloud storage buckets add-iam-policy-binding gs://{asked.bucket} "
        "--member=MEMBER --role=roles/storage.objectUser",
    )


def for_credentials(error: auth.GoogleAuthError, asked: Asked) -> BatonError:
    """What failing credentials mean; pure."""
    first: object = error
    while isinstance(first, Exception | tuple) and (parts := first if isinstance(first, tuple) else first.args):
        first = parts[0]  # the library wraps its errors, and what they carry, in one another
    words = _short(str(first))
    if isinstance(error, auth.InvalidOperation):  # the answer was 401, and there are none that could be renewed
        return _credentials("the service wants credentials (401), and none are given", asked)
    if isinstance(error, auth.DefaultCredentialsError):
        return NeedsPerson(
            f"gs://{asked.bucket}: no credentials are found on this machine ({words.partition('. ')[0]}).",
            fix="gcloud auth application-default login, or set GOOGLE_APPLICATION_CREDENTIALS to a key file.",
        )
    if isinstance(error, auth.TransportError) or getattr(error, "retryable", False):
        return Transient(
            f"gs://{asked.bucket}: no token for the credentials{asked.account}: {words}.", fix="Try again."
        )
    if "reasonable timeframe" in words:
        words += "; is this machine's clock right?"
    return _credentials(f"the credentials{asked.account} cannot be used ({words})", asked)


def _credentials(what: str, asked: Asked) -> BatonError:
    """Refused credentials: what worked before may work again, training goes on until then."""
    fix = "gcloud auth application-default login, or put the key file back."
    return (Transient if asked.trusted else NeedsPerson)(f"gs://{asked.bucket}: {what}.", fix=fix)


def for_connection(error: Exception, asked: Asked) -> BatonError:
    """What a connection that fails means; pure."""
    cause = _cause(error)
    words = _short(getattr(cause, "strerror", None) or str(cause))
    if isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return UsageError(f"the service's address cannot be used: {words}.", fix="Mend STORAGE_EMULATOR_HOST.")
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return NeedsPerson(
            f"{asked.uri}: the service's certificate is not trusted: {words}.",
            fix="Behind a proxy that opens TLS, name its certificates: REQUESTS_CA_BUNDLE=/path/to/ca.pem",
        )
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError) or "timed out" in words:
        return Transient(f"{asked.uri}: the connection stands still.", fix="Check the network, try again.")
    return Transient(f"{asked.uri}: the connection failed: {words}.", fix="Check the network, try again.")


def _cause(error: BaseException) -> BaseException:
    """What the system or the other end said, which the libraries wrap several times."""
    found = error
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
        if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
            found = error
    return found


def _words(text: str) -> tuple[str, str]:
    """(message, reason) of an error's body: JSON where it is the JSON API's, else its text."""
    try:
        error: Any = json.loads(text)["error"]
        reasons = [entry.get("reason", "") for entry in error.get("errors", [])]
        return _short(error["message"]), (reasons or [""])[0]
    except (ValueError, TypeError, KeyError, AttributeError):
        return _short(text), ""


def _short(text: str) -> str:
    words = " ".join(text.split()).rstrip(".")
    return words if len(words) <= LONGEST_WORDS else f"{words[:LONGEST_WORDS]}..."
