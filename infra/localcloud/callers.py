"""Who asks: the person at the laptop, or a VM; told by the token, else by whose process holds the connection."""

import hmac
from typing import Protocol

from infra.localcloud.errors import ANONYMOUS, Refusal
from infra.localcloud.messages import ConnectionCut, Request

LAPTOP = "laptop@local.invalid"
"""The account of the person at the laptop, when they show the token of the laptop's metadata server."""


class Guests(Protocol):
    """The VMs, as far as their connections go."""

    def owns_peer(self, port: int) -> str | None:
        """The VM whose process has this port of 127.0.0.1, as the client's end of a connection."""

    def is_cut(self, port: int) -> bool:
        """Whether the client on this port is a process of a VM without network."""


class Callers:
    """Tells VMs from the laptop. Safe to use from several threads."""

    def __init__(self, guests: Guests, laptop_token: str) -> None:
        self._guests = guests
        self._laptop_token = laptop_token

    def vm(self, request: Request) -> str | None:
        """The VM whose process asks, None for one outside."""
        if "vm" not in request.connection:
            request.connection["vm"] = self._guests.owns_peer(request.port)
        found: str | None = request.connection["vm"]
        return found

    def account(self, request: Request) -> str | None:
        """The account; None for a token that is not the laptop's. Without a token a process outside is the laptop's
        user, one in a VM is nobody.

        Raises 401, and ConnectionCut for a VM without network.
        """
        if self._guests.is_cut(request.port):
            raise ConnectionCut
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not token:
            if self.vm(request) is not None:
                raise Refusal(401, "required", "Login Required: a VM without a token has no rights.")
            return ANONYMOUS
        return LAPTOP if hmac.compare_digest(token.encode(), self._laptop_token.encode()) else None
