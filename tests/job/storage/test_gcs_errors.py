"""What Cloud Storage refuses ends with the right class and says what to do; what may pass is tried again."""

import json

import pytest
import requests
from google.auth import exceptions as auth

from job.errors import NeedsPerson, Transient, UsageError
from job.storage import NotFound, PreconditionFailed, open_bucket
from job.storage.gcs_errors import Asked, Verb, for_connection, for_credentials, for_status
from job.storage.gcs_session import endpoint
from job.storage.gcs_wire import content_type


def asked(verb: Verb = "write", *, trusted: bool = False) -> Asked:
    return Asked(verb, "bucket-1", "runs/x/head.json", " (vm@project)", trusted)


def body(message: str, reason: str = "") -> str:
    return json.dumps({"error": {"code": 0, "message": message, "errors": [{"message": message, "reason": reason}]}})


NO_OBJECT = "No such object: bucket-1/runs/x/head.json"
NO_BUCKET = "The specified bucket does not exist."
DENIED = "vm@project does not have storage.objects.create access to the Google Cloud Storage object."


@pytest.mark.parametrize(
    ("status", "text", "verb", "kind", "says"),
    [
        (404, body(NO_OBJECT, "notFound"), "read", NotFound, "runs/x/head.json"),
        (404, NO_OBJECT, "read", NotFound, "runs/x/head.json"),
        (404, "Not Found", "delete", NotFound, "runs/x/head.json"),
        (404, body(NO_BUCKET, "notFound"), "read", NeedsPerson, "gs://bucket-1 does not exist.*buckets create"),
        (404, body(NO_BUCKET, "notFound"), "list", NeedsPerson, "buckets create gs://bucket-1"),
        (404, "Not Found", "write", NeedsPerson, "does not exist"),
        (404, body(NO_OBJECT), "write", Transient, "a part of it was deleted"),
        (412, "", "write", PreconditionFailed, ""),
        (401, body("Invalid Credentials", "authError"), "write", NeedsPerson, "vm@project.*401.*login"),
        (
            403,
            body(DENIED, "forbidden"),
            "write",
            NeedsPerson,
            "denied: vm@project does.*objects.create.*objectUser",
        ),
        (
            403,
            "<html>no</html>",
            "read",
            NeedsPerson,
            "objects.get is missing.*vm@project.*objectUser",
        ),
        (403, body("Rate limit exceeded", "rateLimitExceeded"), "write", Transient, "403"),
        (403, body("The billing account is disabled", "accountDisabled"), "write", NeedsPerson, "billed.*billing"),
        (403, body("needs serviceusage.services.use"), "read", NeedsPerson, "set-quota-project"),
        (400, body('Provided CRC32C "a" doesn\'t match'), "write", Transient, "not those that were sent"),
        (400, body("Invalid argument"), "write", NeedsPerson, "400.*Invalid argument"),
        (408, "", "write", Transient, "408"),
        (429, body("The object exceeded the rate limit", "rateLimitExceeded"), "write", Transient, "429"),
        (500, "", "read", Transient, "500"),
        (503, "<html>\n\n busy </html>", "read", Transient, "503 .<html> busy </html>"),
    ],
)
def test_an_answer_has_its_class_and_its_way_out(
    status: int, text: str, verb: Verb, kind: type[Exception], says: str
) -> None:
    import re

    error = for_status(status, text, asked(verb))
    assert type(error) is kind
    assert re.search(says, str(error).replace("\n", " "))


def test_credentials_that_worked_before_may_work_again() -> None:
    assert isinstance(for_status(401, "", asked(trusted=True)), Transient)
    expired = auth.RefreshError("invalid_grant: Token has been expired or revoked.")
    assert isinstance(for_credentials(expired, asked(trusted=True)), Transient)
    refused = for_credentials(expired, asked())
    assert isinstance(refused, NeedsPerson)
    assert "expired or revoked" in refused.what
    assert "gcloud auth application-default login" in refused.fix


def test_a_clock_that_is_wrong_is_named() -> None:
    skewed = auth.RefreshError("Invalid JWT: Token must be a short-lived token and in a reasonable timeframe")
    assert "clock" in for_credentials(skewed, asked()).what


def test_a_metadata_server_that_does_not_answer_may_answer_later() -> None:
    assert isinstance(for_credentials(auth.TransportError("timed out"), asked()), Transient)


def test_without_credentials_a_person_is_told_how_to_get_them() -> None:
    error = for_credentials(auth.DefaultCredentialsError("..."), asked())
    assert isinstance(error, NeedsPerson)
    assert "GOOGLE_APPLICATION_CREDENTIALS" in error.fix


@pytest.mark.parametrize(
    ("error", "kind", "says"),
    [
        (requests.ConnectionError("Name or service not known"), Transient, "failed: Name or service not known"),
        (requests.ReadTimeout("read timed out"), Transient, "stands still"),
        (TimeoutError("timed out"), Transient, "stands still"),
        (ConnectionResetError(104, "reset by peer"), Transient, "reset by peer"),
        (requests.exceptions.SSLError("CERTIFICATE_VERIFY_FAILED"), NeedsPerson, "REQUESTS_CA_BUNDLE"),
        (requests.exceptions.InvalidURL("no host"), UsageError, "STORAGE_EMULATOR_HOST"),
    ],
)
def test_a_connection_that_fails_is_transient_unless_it_is_set_up_wrong(
    error: Exception, kind: type[Exception], says: str
) -> None:
    found = for_connection(error, asked())
    assert type(found) is kind
    assert says in str(found)


def test_where_the_service_is() -> None:
    assert endpoint("") == ("https://storage.googleapis.com", False)
    assert endpoint("http://127.0.0.1:9/") == ("http://127.0.0.1:9", True)
    assert endpoint("localhost:9023") == ("http://localhost:9023", True)
    with pytest.raises(UsageError, match="STORAGE_EMULATOR_HOST"):
        endpoint("ftp://x")


@pytest.mark.parametrize(
    "uri",
    [
        "gs://",
        "gs:///runs/x",
        "gs://My-Bucket/runs/x",
        "gs://b/runs/x",
        "gs://bucket-1/runs//x",
        "gs://bucket-1/runs/../x",
        "gs://bucket-1/runs/.x",
        "gs://bucket-1/runs/x?y",
        "gs://bucket-1/runs/*",
        "gs://bucket-1/runs/a\nb",
    ],
)
def test_uris_that_name_no_run_are_refused_with_the_form_that_is_right(uri: str) -> None:
    with pytest.raises(UsageError, match="not the URI of a run") as caught:
        open_bucket(uri)
    assert "gs://BUCKET/runs/NAME" in caught.value.fix


def test_a_name_that_is_too_long_is_refused_before_the_service_does() -> None:
    with pytest.raises(UsageError, match="too long"):
        open_bucket("gs://bucket-1/" + "x" * 1010).stat("checkpoints/000001")


def test_a_report_opens_as_a_page() -> None:
    assert content_type("result/report.html") == "text/html"
    assert content_type("head.json") == "application/json"
    assert content_type("state.safetensors") == "application/octet-stream"
