"""Refusals as Cloud Storage words them: JSON as all of Google, XML, and plain text where media was asked for."""

from xml.sax.saxutils import escape

from infra.localcloud.errors import ANONYMOUS, Refusal

XML_CODES = {
    400: "InvalidArgument",
    401: "AuthenticationRequired",
    403: "AccessDenied",
    404: "NoSuchKey",
    405: "MethodNotAllowed",
    409: "BucketAlreadyOwnedByYou",
    412: "PreconditionFailed",
    416: "InvalidRange",
    429: "SlowDown",
    500: "InternalError",
    501: "NotImplemented",
    503: "ServiceUnavailable",
}


class ApiError(Refusal):
    """A refusal with a code of its own in the XML API."""

    def __init__(self, status: int, reason: str, message: str, *, xml_code: str = "", location: str = "") -> None:
        super().__init__(status, reason, message, location=location)
        self.xml_code = xml_code or XML_CODES.get(status, "InternalError")


def as_xml(error: Refusal) -> bytes:
    """The body of a refusal by the XML API."""
    code = error.xml_code if isinstance(error, ApiError) else XML_CODES.get(error.status, "InternalError")
    return (
        f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code>"
        f"<Message>{escape(error.message)}</Message><Details>{escape(error.reason)}</Details></Error>"
    ).encode()


def bad_request(message: str, *, xml_code: str = "") -> ApiError:
    """400: what was asked makes no sense."""
    return ApiError(400, "invalid", message, xml_code=xml_code)


def no_bucket() -> ApiError:
    """404 for a bucket."""
    return ApiError(404, "notFound", "The specified bucket does not exist.", xml_code="NoSuchBucket")


def no_object(bucket: str, name: str) -> ApiError:
    """404 for an object."""
    return ApiError(404, "notFound", f"No such object: {bucket}/{name}")


def no_upload() -> ApiError:
    """404 for an upload that was never begun, was cancelled, or is over."""
    return ApiError(404, "notFound", "The requested upload was not found.", xml_code="NoSuchUpload")


def condition_not_met() -> ApiError:
    """412: the object is not the one that the caller named."""
    message = "At least one of the pre-conditions you specified did not hold."
    return ApiError(412, "conditionNotMet", message, location="If-Match")


def not_modified() -> ApiError:
    """304: an if...NotMatch did not hold; it has no body."""
    return ApiError(304, "notModified", "Not Modified")


def bad_range() -> ApiError:
    """416: the object has no such bytes."""
    return ApiError(416, "requestedRangeNotSatisfiable", "The requested range cannot be satisfied.")


def forbidden(account: str, permission: str, resource: str) -> ApiError:
    """403, naming the permission that is missing; 401 for a caller without credentials."""
    anonymous = account == ANONYMOUS
    return ApiError(
        401 if anonymous else 403,
        "required" if anonymous else "forbidden",
        f"{'Anonymous caller' if anonymous else account} does not have {permission} access to the Google Cloud "
        f"Storage {resource}. Permission '{permission}' denied on resource (or it may not exist).",
    )


def too_many_requests(bucket: str, name: str) -> ApiError:
    """429: the limit of changes per object name."""
    return ApiError(
        429,
        "rateLimitExceeded",
        f"The object {bucket}/{name} exceeded the rate limit for object mutation operations (create, update, "
        "and delete). Please reduce your request rate. See https://cloud.google.com/storage/docs/gcs429.",
    )


def unavailable(status: int = 503) -> ApiError:
    """A failure of the service itself."""
    return ApiError(status, "backendError", "We encountered an internal error. Please try again.")
