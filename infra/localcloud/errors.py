"""Refusals as Google's JSON APIs word them."""

import json
from typing import Any

ANONYMOUS = "anonymous"


class Refusal(Exception):
    """A refusal: HTTP status, Google's reason, and the sentence for people."""

    def __init__(self, status: int, reason: str, message: str, *, location: str = "", domain: str = "") -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.location = location
        self.domain = domain or ("usageLimits" if status == 429 else "global")

    @property
    def headers(self) -> dict[str, str]:
        """What goes with it, beside the body."""
        return {"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'} if self.status == 401 else {}

    def as_json(self) -> bytes:
        """Its body."""
        detail: dict[str, Any] = {"message": self.message, "domain": self.domain, "reason": self.reason}
        if self.location:
            detail |= {"locationType": "header", "location": self.location}
        return json.dumps({"error": {"code": self.status, "message": self.message, "errors": [detail]}}).encode()


def invalid_credentials() -> Refusal:
    """401: a token that is unknown or has run out."""
    return Refusal(401, "authError", "Invalid Credentials", location="Authorization")


def stranger() -> Refusal:
    """403 for a web page."""
    return Refusal(403, "forbidden", "This server answers programs on this machine, not web pages.")


def other_user() -> Refusal:
    """403 for a process of somebody else's on this machine."""
    return Refusal(403, "forbidden", "This server answers programs of the user who started it, nobody else's.")
