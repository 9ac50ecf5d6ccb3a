"""A project on Google Cloud of a test's own, over HTTP: the local cloud, and before it the APIs that it has not.

What is asked for by its path is answered from `answers`; Compute Engine and Cloud Storage go on to the local cloud.
`gcloud` changes it as the real command would, for the commands that setup and the doctor name.
"""

import json
import re
import shlex
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import parse_qs, quote, urlsplit

from infra.doctor.google import PREFIXES
from infra.localcloud.cloud import LocalCloud, local_cloud
from infra.localcloud.compute.quotas import GPU_METRICS
from infra.setup.plan import plan
from infra.setup.run import planned
from infra.setup.wanted import Wanted, all_regions

PROJECT, REGION = "my-project", "us-central1"
BUCKET = f"{PROJECT}-runs"
OWN = f"projects/{PROJECT}"
FORWARDED = ("/compute/", "/storage/")
NOT_THERE = re.compile(r"/managedFolders/|/global/(networks|firewalls)/")
"""What the local cloud knows nothing of."""
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Past any proxy."""


@dataclass
class Said:
    """An answer that is none: a status, and what is said with it."""

    status: int
    message: str = ""
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    wait: threading.Event | None = None
    """Before it answers at all."""

    def body(self) -> bytes:
        error = {"code": self.status, "message": self.message, "details": [{"reason": self.reason}]}
        return json.dumps({"error": error}).encode()


@dataclass
class GoogleProject:
    """Its resources by path (without the host), and what was asked."""

    cloud: LocalCloud
    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        """What points every client at it."""
        overrides = {f"CLOUDSDK_API_ENDPOINT_OVERRIDES_{name.upper()}": f"{self.url}/" for name in PREFIXES}
        return overrides | {
            "STORAGE_EMULATOR_HOST": self.cloud.storage.url,
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "BATON_PROJECT": PROJECT,
            "BATON_BUCKET": f"gs://{BUCKET}",
            "BATON_IMAGE": self.image(),
            "HF_ENDPOINT": self.url,
        }

    # what is there from the start, and what setup makes of it

    def begin(self) -> None:
        """A project as Google gives it to somebody who pays."""
        self.answers[f"/v1/{OWN}"] = {"projectNumber": "123", "projectId": PROJECT, "lifecycleState": "ACTIVE"}
        self.answers[f"/v1/{OWN}/billingInfo"] = {"billingEnabled": True, "billingAccountName": "billingAccounts/1"}
        self.answers[f"/v1/{OWN}:getIamPolicy"] = {"bindings": []}
        self.answers[f"/v1/{OWN}/services"] = {"services": []}
        for kind in ("subnetworks", "routers"):
            self.answers[f"/compute/v1/{OWN}/aggregated/{kind}"] = {"items": {}}

    def set_up(self, **more: Any) -> None:
        """As infra/setup.sh leaves it."""
        wanted = Wanted(PROJECT, REGION, BUCKET, all_regions(), **more)
        for step in plan(wanted):
            for command in planned(step, None).commands:
                self.gcloud(list(command.words))

    def run(self, fix: str) -> None:
        """A finding's fix, carried out: a gcloud of the test's own, or setup."""
        for line in fix.splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "gcloud":
                self.gcloud(words[1:])
            elif words:
                assert words[0] == "infra/setup.sh", line
                assert f"--bucket {BUCKET}" in line, "it has to be the bucket that is meant"
                self.set_up(nat="--nat" in words)

    def gcloud(self, words: list[str]) -> None:
        """Changes the project. Knows no other commands than those that are named to people."""
        plain = [word for word in words if not word.startswith("--")]
        flags = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
        match plain:
            case ["services", "enable", *names]:
                self.answers[f"/v1/{OWN}/services"]["services"] += [{"config": {"name": name}} for name in names]
            case ["beta", "quotas", "preferences", "create"]:
                metric = flags["quota-id"].partition("-per-project")[0].replace("-", "_")
                self.order("quota", metric=metric, limit=float(flags["preferred-value"]), region="*")
            case ["storage", "buckets", "create" | "update", _]:
                self.change_bucket(flags)
            case ["compute", "networks", "subnets", "create", name]:
                found = {"name": name, "ipCidrRange": flags["range"], "privateIpGoogleAccess": True}
                self._scoped("subnetworks", flags["region"], found)
            case ["compute", "networks", "subnets", "update", _]:
                self.subnet(flags["region"])["privateIpGoogleAccess"] = True
            case ["compute", "routers", "create", name]:
                self._scoped("routers", flags["region"], {"name": name})
            case ["compute", "routers", "nats", "create", _]:
                scoped = self.answers[f"/compute/v1/{OWN}/aggregated/routers"]["items"]
                scoped[f"regions/{flags['region']}"]["routers"][0]["nats"] = [{}]
            case [*group, "create", name]:
                self.answers.setdefault(self.path(group, name, flags), self._made(flags))
            case ["iam", "roles", "update", name]:
                self.answers[self.path(["iam", "roles"], name, flags)] = self._made(flags)
            case [*group, "add-iam-policy-binding", name]:
                self.bindings(group, name, flags).append(_binding(flags))
            case ["secrets", "versions", "add", name]:
                self.answers[f"/v1/{OWN}/secrets/{name}/versions"] = {"versions": [{"name": f"{name}/versions/1"}]}
                self.answers[f"/v1/{OWN}/secrets/{name}/versions/1"] = {"state": "ENABLED"}
            case _:
                raise AssertionError(f"no such command here: {words}")

    def path(self, group: list[str], name: str, flags: dict[str, str]) -> str:
        """Where a thing is asked for."""
        match group:
            case ["projects"]:
                return f"/v1/projects/{name}"
            case ["compute", kind]:
                return f"/compute/v1/{OWN}/global/{'firewalls' if kind == 'firewall-rules' else kind}/{name}"
            case ["iam", "service-accounts"]:
                address = name if "@" in name else f"{name}@{PROJECT}.iam.gserviceaccount.com"
                return f"/v1/{OWN}/serviceAccounts/{address}"
            case ["iam", "roles"]:
                return f"/v1/{OWN}/roles/{name}"
            case ["artifacts", "repositories"]:
                return f"/v1/{OWN}/locations/{flags['location']}/repositories/{name}"
            case ["secrets"]:
                return f"/v1/{OWN}/secrets/{name}"
            case ["storage", *_]:
                bucket, _, folder = name.removeprefix("gs://").partition("/")
                return f"/storage/v1/b/{bucket}" + (f"/managedFolders/{quote(folder, safe='')}" if folder else "")
        raise AssertionError(group)

    def bindings(self, group: list[str], name: str, flags: dict[str, str]) -> list[Any]:
        """Of a policy."""
        path = self.path(group, name, flags)
        path += "/iam" if group[0] == "storage" else ":getIamPolicy"
        found: list[Any] = self.answers.setdefault(path, {"bindings": []})["bindings"]
        return found

    def subnet(self, region: str) -> dict[str, Any]:
        """The subnet of a region."""
        scoped = self.answers[f"/compute/v1/{OWN}/aggregated/subnetworks"]["items"]
        found: dict[str, Any] = scoped[f"regions/{region}"]["subnetworks"][0]
        return found

    def change_bucket(self, flags: dict[str, str]) -> None:
        """The bucket of the local cloud, made or changed over its API."""
        if "location" in flags:
            self.cloud.storage.make_bucket(BUCKET, flags["location"])
        patch: dict[str, Any] = {}
        if "uniform-bucket-level-access" in flags or "public-access-prevention" in flags:
            patch["iamConfiguration"] = {
                "uniformBucketLevelAccess": {"enabled": True},
                "publicAccessPrevention": "enforced",
            }
        if "soft-delete-duration" in flags or "clear-soft-delete" in flags:
            patch["softDeletePolicy"] = {"retentionDurationSeconds": "0"}
        if "no-versioning" in flags:
            patch["versioning"] = {"enabled": False}
        if "lifecycle-file" in flags:
            patch["lifecycle"] = json.loads(Path(flags["lifecycle-file"]).read_text())
        self.patch_bucket(patch)

    def patch_bucket(self, patch: dict[str, Any]) -> None:
        """Changes the bucket's resource."""
        at = f"{self.cloud.storage.url}/storage/v1/b/{BUCKET}"
        headers = {"Content-Type": "application/json"}
        with DIRECT.open(urllib.request.Request(at, json.dumps(patch).encode(), headers, method="PATCH")):
            pass

    def order(self, do: str, **details: Any) -> None:
        """Has the local cloud do something."""
        body = json.dumps({"do": do, **details}).encode()
        with DIRECT.open(urllib.request.Request(f"{self.cloud.compute_url}/_control", body)):
            pass

    def no_gpus(self) -> None:
        """As new projects are."""
        for metric in (*GPU_METRICS, "GPUS_ALL_REGIONS"):
            self.order("quota", metric=metric, limit=0, region="*")

    def image(self, architecture: str = "amd64") -> str:
        """A container in the registry that it is as well, by its digest."""
        config = json.dumps({"os": "linux", "architecture": architecture}).encode()
        manifest = json.dumps({"config": {"digest": f"sha256:{sha256(config).hexdigest()}"}}).encode()
        digest = f"sha256:{sha256(manifest).hexdigest()}"
        self.answers[f"/v2/p/train/blobs/sha256:{sha256(config).hexdigest()}"] = config
        self.answers[f"/v2/p/train/manifests/{digest}"] = manifest
        return f"{self.url.removeprefix('http://')}/p/train@{digest}"

    def _scoped(self, kind: str, region: str, found: dict[str, Any]) -> None:
        at = f"https://www.googleapis.com/compute/v1/{OWN}/regions/{region}"
        scoped = self.answers[f"/compute/v1/{OWN}/aggregated/{kind}"]["items"]
        scoped[f"regions/{region}"] = {kind: [found | {"region": at}]}

    def _made(self, flags: dict[str, str]) -> dict[str, Any]:
        return {"includedPermissions": flags["permissions"].split(",")} if "permissions" in flags else {}

    def forward(self, method: str, path: str) -> tuple[int, bytes]:
        """What the local cloud says."""
        base = self.cloud.storage.url if path.startswith("/storage/") else self.cloud.compute_url
        try:
            with DIRECT.open(urllib.request.Request(f"{base}{path}", method=method)) as reply:
                return reply.status, reply.read()
        except HTTPError as error:
            return error.code, error.read()


def _binding(flags: dict[str, str]) -> dict[str, Any]:
    one: dict[str, Any] = {"role": flags["role"], "members": [flags["member"]]}
    if flags.get("condition", "None") != "None":
        title, _, expression = flags["condition"].removeprefix("title=").partition(",expression=")
        one["condition"] = {"title": title, "expression": expression}
    return one


@contextmanager
def google_project(home: Path) -> Iterator[GoogleProject]:
    """Serves on loopback until the block ends."""
    home.mkdir()
    with local_cloud(home, project=PROJECT) as cloud:
        project = GoogleProject(cloud)

        class Handler(BaseHTTPRequestHandler):
            def _serve(self) -> None:
                parts = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
                project.asked.append((f"{self.path} {body}", self.command, self.headers.get("Authorization")))
                found = project.answers.get(parts.path)
                headers: dict[str, str] = {}
                if isinstance(found, Said):
                    if found.wait is not None:
                        found.wait.wait(30)
                    status, reply, headers = found.status, found.body(), found.headers
                elif found is None and parts.path.startswith(FORWARDED) and not NOT_THERE.search(parts.path):
                    status, reply = project.forward(self.command, self.path)
                elif found is None:
                    status, reply = 404, Said(404, "not found").body()
                else:
                    status, reply = (
                        200,
                        found if isinstance(found, bytes) else json.dumps(_filtered(found, parts.query)),
                    )
                    reply = reply if isinstance(reply, bytes) else reply.encode()
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            do_GET = do_POST = do_HEAD = _serve

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        with Server(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            project.url = f"http://127.0.0.1:{server.server_port}"
            project.begin()
            yield project
            server.shutdown()


def _filtered(found: Any, query: str) -> Any:
    """A policy is shown whole to those only who ask for its conditions: an old version has none."""
    asked = {name.rpartition(".")[2]: values[0] for name, values in parse_qs(query).items()}
    if isinstance(found, dict) and "bindings" in found and query:
        version = asked.get("requestedPolicyVersion") or asked.get("optionsRequestedPolicyVersion")
        if version != "3":
            return {"bindings": [one for one in found["bindings"] if "condition" not in one]}
    return found
