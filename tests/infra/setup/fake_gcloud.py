"""A gcloud of the tests' own: a small project in a file. It writes down every call, and knows no other than setup's.

What it is told on standard input it keeps as its hash. With REAL_GCLOUD set, `storage` and `secrets` go to that one.
"""

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

STATE = Path(os.environ["FAKE_GCLOUD_STATE"])
NUMBER = "123456789"
ACTIONS = {"create", "create-oidc", "update", "update-oidc", "describe", "list", "enable", "delete", "undelete", "add"}
POLICIES = {"get-iam-policy", "add-iam-policy-binding", "remove-iam-policy-binding"}


def main(words: list[str]) -> int:
    """One call."""
    real = os.environ.get("REAL_GCLOUD")
    if real and words[0] in ("storage", "secrets"):
        note(words, sys.stdin.read() if "--data-file=-" in words else "", forward=real)
    value = sys.stdin.read() if "--data-file=-" in words else ""
    note(words, value)
    with STATE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several are asked at once
        return call(words, value)


def call(words: list[str], value: str) -> int:
    """Reads the project, changes it, answers."""
    state = json.loads(STATE.read_text()) if STATE.exists() else {"things": {}, "policies": {}, "services": []}
    flags = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
    plain = [word for word in words if not word.startswith("--")]
    at = next(i for i, word in enumerate(plain) if word in ACTIONS | POLICIES)
    group, action, rest = " ".join(plain[:at]), plain[at], plain[at + 1 :]
    answer = act(state, group, action, rest, flags, value)
    STATE.write_text(json.dumps(state))
    if answer is None:
        print(f"ERROR: (gcloud.{group}.{action}) NOT_FOUND: {rest} was not found", file=sys.stderr)
        return 1
    if "format" in flags:
        print(json.dumps(answer))
    return 0


def note(words: list[str], value: str, forward: str = "") -> None:
    """Writes the call down; hands it on where it is another's."""
    told = f" <{hashlib.sha256(value.encode()).hexdigest()[:8]}" if value else ""
    with STATE.with_suffix(".calls").open("a") as calls:
        calls.write(json.dumps([*words, told] if told else words) + "\n")
    if forward:
        raise SystemExit(subprocess.run([forward, *words], input=value, text=True, check=False).returncode)


def act(state: dict[str, Any], group: str, action: str, rest: list[str], flags: dict[str, str], value: str) -> Any:
    """The answer, None for what is not there; changes the state."""
    if group == "projects" and action == "describe":
        return {"projectId": rest[0], "projectNumber": NUMBER}
    if group == "services":
        state["services"] = sorted({*state["services"], *rest})
        return [{"config": {"name": name}} for name in state["services"]]
    place = flags.get("region") or flags.get("location") or flags.get("workload-identity-pool", "")
    name = rest[0] if rest else ""
    if group.startswith("storage"):
        place = ""
    if group == "iam service-accounts":
        name = name.partition("@")[0]  # made by its name, else meant by its address
    key = f"{group} {name} {place}".strip()
    if action in POLICIES:
        return policy(state, action, key, flags)
    things = state["things"]
    if action == "list":
        if group == "secrets versions":
            return things.get(f"versions {rest[0]}", [])[-1:]
        return [thing for other, thing in sorted(things.items()) if other.startswith(f"{group} ")]
    if group == "secrets versions":
        made = things.setdefault(f"versions {rest[0]}", [])
        name = f"projects/{NUMBER}/secrets/{rest[0]}/versions/{len(made) + 1}"
        made.append({"name": name, "sha": hashlib.sha256(value.encode()).hexdigest(), "bytes": len(value)})
        return made[-1]
    if group == "compute routers nats":
        router = things[f"compute routers {flags['router']} {place}"]
        router["nats"] = [{"name": rest[0]}]
        return router
    if action.startswith("create"):
        assert key not in things, f"{key} is there"
        things[key] = resource(group, flags, place)
    elif action == "describe":
        return things.get(key)
    elif action == "delete":
        if key not in things:
            return None
        if group == "iam roles":
            things[key]["deleted"] = True
        elif group.startswith("iam workload"):
            things[key]["state"] = "DELETED"
        else:
            del things[key]
            state["policies"].pop(key, None)
    elif action == "undelete":
        things[key].pop("deleted", None)
        things[key].pop("state", None)
    else:
        things[key] |= resource(group, flags, place)
    return things.get(key, {})


def resource(group: str, flags: dict[str, str], place: str) -> dict[str, Any]:
    """What describing it shows, as far as setup reads it."""
    shown: dict[str, Any] = {"flags": flags}
    if group == "iam roles":
        shown["includedPermissions"] = flags["permissions"].split(",")
    if group == "storage buckets":
        shown |= bucket(flags)
    if place and group.startswith("compute"):
        shown["region"] = f"https://www.googleapis.com/compute/v1/projects/p/regions/{place}"
    if group.endswith("subnets"):
        shown["privateIpGoogleAccess"] = "enable-private-ip-google-access" in flags
        shown |= {"ipCidrRange": flags["range"]} if "range" in flags else {}
    if "attribute-condition" in flags:
        shown["attributeCondition"] = flags["attribute-condition"]
    return shown


def bucket(flags: dict[str, str]) -> dict[str, Any]:
    """A bucket's resource."""
    shown: dict[str, Any] = {"location": flags["location"].upper()} if "location" in flags else {}
    if "uniform-bucket-level-access" in flags or "public-access-prevention" in flags:
        shown["iamConfiguration"] = {
            "uniformBucketLevelAccess": {"enabled": "uniform-bucket-level-access" in flags},
            "publicAccessPrevention": "enforced" if "public-access-prevention" in flags else "inherited",
        }
    if "soft-delete-duration" in flags or "clear-soft-delete" in flags:
        shown["softDeletePolicy"] = {"retentionDurationSeconds": flags.get("soft-delete-duration", "0")}
    if "lifecycle-file" in flags:
        shown["lifecycle"] = json.loads(Path(flags["lifecycle-file"]).read_text())
    return shown


def policy(state: dict[str, Any], action: str, key: str, flags: dict[str, str]) -> Any:
    """A policy, changed."""
    found = state["policies"].setdefault(key, {"bindings": []})
    if action == "get-iam-policy":
        return found
    one: dict[str, Any] = {"role": flags["role"], "members": [flags["member"]]}
    if flags.get("condition", "None") != "None":
        title, _, expression = flags["condition"].removeprefix("title=").partition(",expression=")
        assert "," not in expression, "gcloud would cut it there"
        one["condition"] = {"title": title, "expression": expression}
    if action.startswith("add"):
        found["bindings"].append(one)
    else:
        found["bindings"].remove(one)
    return found


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
