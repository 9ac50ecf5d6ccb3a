"""Requests of Secret Manager v1 and their answers. The laptop's user may everything; a VM's account accesses what the
secret's own policy says, and nothing else."""

import base64
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

import google_crc32c

from infra.localcloud.callers import LAPTOP, Callers
from infra.localcloud.errors import ANONYMOUS, Refusal, invalid_credentials
from infra.localcloud.messages import Request, Response, json_response, refused
from infra.localcloud.secret_manager.store import DESTROYED, DISABLED, ENABLED, Secret, Store, Version

ACCESSOR = "roles/secretmanager.secretAccessor"
NAME = r"[A-Za-z0-9_-]{1,255}"
_ROOT = re.compile(r"/v1/projects/(?P<project>[^/]+)/secrets")
_ONE = re.compile(rf"(?P<name>{NAME})(?::(?P<verb>[a-zA-Z]+))?")
_VERSION = re.compile(rf"(?P<name>{NAME})/versions(?:/(?P<number>\w+)(?::(?P<verb>[a-z]+))?)?")
STATES = {"disable": DISABLED, "enable": ENABLED, "destroy": DESTROYED}


class SecretManager:
    """Answers requests, from several threads at once."""

    def __init__(
        self, store: Store, callers: Callers, token_account: Callable[[str], str | None], project: str
    ) -> None:
        self._store = store
        self._callers = callers
        self._token_account = token_account
        self._project = project
        self._number = str(10**11 + crc32(project.encode()))

    def answer(self, request: Request) -> Response:
        """The answer. Raises ConnectionCut for a VM without network."""
        try:
            root = _ROOT.match(request.path)
            if root is None or root["project"] not in (self._project, self._number):
                raise Refusal(403, "forbidden", f"Permission denied on resource {request.path}.")
            account = self._account(request)
            with self._store.lock:
                found = self._answer(request, account, request.path[root.end() :].strip("/"))
        except Refusal as error:
            request.body.drain()
            return refused(error)
        request.body.drain()
        return json_response(found)

    def _account(self, request: Request) -> str:
        account = self._callers.account(request)
        if account is None:
            token = request.headers.get("authorization", "").removeprefix("Bearer ")
            account = self._token_account(token)
        if account is None:
            raise invalid_credentials()
        return LAPTOP if account == ANONYMOUS else account

    def _answer(self, request: Request, account: str, rest: str) -> Mapping[str, Any]:
        if account != LAPTOP:
            return self._access_only(request, account, rest)
        if not rest:
            return self._all(request)
        if (one := _ONE.fullmatch(rest)) is not None:
            return self._secret(request, one["name"], one["verb"] or "")
        if (version := _VERSION.fullmatch(rest)) is not None:
            return self._versions(request, version["name"], version["number"] or "", version["verb"] or "")
        raise _unknown(request)

    def _access_only(self, request: Request, account: str, rest: str) -> Mapping[str, Any]:
        found = _VERSION.fullmatch(rest)
        secret = self._store.secrets.get(found["name"]) if found is not None else None
        if found is None or found["verb"] != "access" or secret is None or not secret.allows(ACCESSOR, account):
            verb = "versions.access" if found is not None and found["verb"] == "access" else "secrets.get"
            message = f"Permission 'secretmanager.{verb}' denied for resource '{rest}' (or it may not exist)."
            raise Refusal(403, "forbidden", message)
        return self._accessed(found["name"], found["number"])

    def _all(self, request: Request) -> Mapping[str, Any]:
        if request.method == "GET":
            shown = [self._shown(name, one) for name, one in sorted(self._store.secrets.items())]
            return {"secrets": shown, "totalSize": len(shown)}
        name = request.query.get("secretId", "")
        if request.method != "POST" or not re.fullmatch(NAME, name):
            raise _unknown(request)
        made = self._store.create(name, request.json().get("replication", {}))
        self._store.keep()
        return self._shown(name, made)

    def _secret(self, request: Request, name: str, verb: str) -> Mapping[str, Any]:
        secret = self._store.get(name)
        match request.method, verb:
            case "GET", "":
                return self._shown(name, secret)
            case "DELETE", "":
                del self._store.secrets[name]
            case "POST", "addVersion":
                return self._add(request, name, secret)
            case "GET", "getIamPolicy":
                return _policy(secret)
            case "POST", "setIamPolicy":
                secret.bindings = request.json().get("policy", {}).get("bindings", [])
            case _:
                raise _unknown(request)
        self._store.keep()
        return _policy(secret) if verb else {}

    def _add(self, request: Request, name: str, secret: Secret) -> Mapping[str, Any]:
        payload = request.json()["payload"]
        data = base64.b64decode(payload["data"])
        sum_given = payload.get("dataCrc32c")
        if sum_given is not None and int(sum_given) != google_crc32c.value(data):
            raise Refusal(400, "invalid", "The checksum does not fit the payload.")
        secret.versions.append(Version(base64.b64encode(data).decode(), datetime.now(UTC).timestamp()))
        self._store.keep()
        shown = self._version_shown(name, len(secret.versions), secret.versions[-1])
        return {**shown, "clientSpecifiedPayloadChecksum": sum_given is not None}

    def _versions(self, request: Request, name: str, wanted: str, verb: str) -> Mapping[str, Any]:
        if not wanted and request.method == "GET":
            versions = list(enumerate(self._store.get(name).versions, 1))[::-1]
            asked = request.query.get("filter", "")
            kept = [one for one in versions if not asked.startswith("state") or one[1].state in asked]
            return {"versions": [self._version_shown(name, *one) for one in kept], "totalSize": len(kept)}
        number, version = self._store.version(name, wanted)
        if request.method == "GET" and verb == "access":
            return self._accessed(name, wanted)
        if request.method == "POST" and verb in STATES:
            version.state = STATES[verb]
            version.data = "" if version.state == DESTROYED else version.data
            self._store.keep()
        elif request.method != "GET" or verb:
            raise _unknown(request)
        return self._version_shown(name, number, version)

    def _accessed(self, name: str, wanted: str) -> Mapping[str, Any]:
        number, version = self._store.version(name, wanted)
        if version.state != ENABLED:
            where = self._version_name(name, number)
            raise Refusal(400, "failedPrecondition", f"Secret Version [{where}] is in {version.state} state.")
        crc = google_crc32c.value(base64.b64decode(version.data))
        payload = {"data": version.data, "dataCrc32c": str(crc)}
        return {"name": self._version_name(name, number), "payload": payload}

    def _shown(self, name: str, secret: Secret) -> Mapping[str, Any]:
        full = f"projects/{self._number}/secrets/{name}"
        return {"name": full, "createTime": _time(secret.created_s), "replication": secret.replication}

    def _version_shown(self, name: str, number: int, version: Version) -> Mapping[str, Any]:
        where = self._version_name(name, number)
        return {"name": where, "createTime": _time(version.created_s), "state": version.state}

    def _version_name(self, name: str, number: int) -> str:
        return f"projects/{self._number}/secrets/{name}/versions/{number}"


def _policy(secret: Secret) -> Mapping[str, Any]:
    return {"version": 1, "etag": "AAA=", "bindings": secret.bindings}


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def _unknown(request: Request) -> Refusal:
    return Refusal(501, "notImplemented", f"{request.method} {request.path} is not answered by this server.")
