"""The metadata server of the laptop, for clients that look for credentials there: its token is the laptop user's."""

from typing import Any

from infra.localcloud.callers import LAPTOP
from infra.localcloud.errors import Refusal
from infra.localcloud.messages import Request, Response, json_response

ROOT = "/computeMetadata/v1"
TOKEN_S = 3600
FLAVOR = {"Metadata-Flavor": "Google"}
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


def is_metadata(request: Request) -> bool:
    """Whether this is asked of a metadata server: clients look at `/` to see whether there is one."""
    return request.path.startswith(ROOT) or (request.path == "/" and request.headers.get("metadata-flavor") == "Google")


def answer(request: Request, project: str, token: str) -> Response:
    """The answer. Raises 403, 404."""
    if request.headers.get("metadata-flavor") != "Google":
        raise Refusal(403, "forbidden", "Missing Metadata-Flavor:Google header.")
    path = request.path.removeprefix(ROOT).strip("/")
    account = {"aliases": ["default"], "email": LAPTOP, "scopes": [SCOPE]}
    accounts = "instance/service-accounts"
    documents: dict[str, Any] = {
        "": {},
        f"{accounts}/default": account,
        accounts: {"default": account, LAPTOP: account},
    }
    for name in ("default", LAPTOP):
        documents[f"{accounts}/{name}"] = account
        documents[f"{accounts}/{name}/token"] = {
            "access_token": token,
            "expires_in": TOKEN_S,
            "token_type": "Bearer",
        }
    texts = {
        "": "computeMetadata/\n",
        "project/project-id": project,
        "universe/universe-domain": "googleapis.com",
        accounts: f"default/\n{LAPTOP}/\n",
        f"{accounts}/default/email": LAPTOP,
        f"{accounts}/default/scopes": f"{SCOPE}\n",
    }
    wants_json = request.query.get("recursive", "").lower() == "true" or path.endswith("/token")
    if wants_json and path in documents:
        found = json_response(documents[path])
        return Response(200, found.headers | FLAVOR, found.body)
    if path in texts:
        return Response(200, {"Content-Type": "application/text"} | FLAVOR, texts[path].encode())
    raise Refusal(404, "notFound", f"There is no {path} on the laptop's metadata server.")
