"""Proves that the conditions that setup writes into policies, in IAM's language, allow the very names that the local
cloud's rules allow: what is proven there of rights is proven of what is granted.
"""

import pytest

from infra.localcloud.storage.policy import parse_policy
from infra.setup.grants import ONLY_OURS, READ, RUNS, VM, WATCHDOG, WRITE, WRITES, policy_rules

BUCKET = "my-bucket"
NAMES = [
    "runs/mine/head.json",
    "runs/mine/checkpoints/000001-0001-ab/adapter.safetensors",
    "runs/mine/attempts/0001/console/000001.log",
    "runs/mine/control/claims.json",
    "runs/mine/control/spec/0002.json",
    "runs/team/mine/control/claims.json",
    "runs/team/mine/head.json",
    "runs/mine/controls/x",
    "runs/mine/attempts/0001/control/x",
    "runs/mine/control",
    "runs/control/x",
    "watchdog/console/000001.log",
    "watchdogs/x",
    "builds/source.tgz",
    "runs",
    "x/runs/mine/head.json",
    "x/runs/mine/control/claims.json",
]


class Name:
    """A resource's name, with the functions that IAM's conditions have for it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def startsWith(self, prefix: str) -> bool:
        return self.text.startswith(prefix)

    def extract(self, template: str) -> "Name":
        """What stands where the template has braces; empty where it does not fit."""
        before, _, rest = template.partition("{")
        after = rest.partition("}")[2]
        _, found, rest = self.text.partition(before)
        if not found:
            return Name("")
        if not after:
            return Name(rest)
        value, found, _ = rest.partition(after)
        return Name(value if found else "")

    def __eq__(self, other: object) -> bool:
        return self.text == (other.text if isinstance(other, Name) else other)

    def __hash__(self) -> int:
        return hash(self.text)


class Resource:
    """What a condition is about."""

    def __init__(self, name: str, type: str = "storage.googleapis.com/Object") -> None:
        self.name, self.type = Name(name), type


def holds(expression: str, resource: Resource) -> bool:
    """A condition's verdict; our expressions have nothing that Python reads otherwise but its words for and, or."""
    in_python = expression.replace("&&", "and").replace("||", "or")
    return bool(eval(in_python, {"__builtins__": {}}, {"resource": resource}))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("account", [VM, WATCHDOG])
def test_a_condition_allows_what_the_local_clouds_rules_allow(account: str, name: str) -> None:
    policy = parse_policy({"accounts": {account: list(policy_rules(account, BUCKET))}})
    resource = Resource(f"projects/_/buckets/{BUCKET}/objects/{name}")
    writes = any(holds(names.condition(BUCKET), resource) for names in WRITES[account])
    reads = name.startswith(RUNS)  # the managed folder's prefix
    for verbs, expected in ((WRITE, writes), (READ, reads)):
        for verb in verbs:
            assert policy.allows(account, verb, BUCKET, name) is expected, (verb, name)
            assert not policy.allows(account, verb, "another-bucket", name)


def test_the_cases_tell_something() -> None:
    allowed = {
        account: {
            name
            for name in NAMES
            for names in WRITES[account]
            if holds(names.condition(BUCKET), Resource(f"projects/_/buckets/{BUCKET}/objects/{name}"))
        }
        for account in (VM, WATCHDOG)
    }
    assert "runs/mine/head.json" in allowed[VM]
    assert "runs/mine/control/claims.json" in allowed[WATCHDOG]
    assert allowed[VM] & allowed[WATCHDOG] == set(), "no object has two kinds of writers"


@pytest.mark.parametrize(
    ("name", "type", "allowed"),
    [
        ("projects/p/zones/z/instances/baton-sums-0a1b2c3d-a0001", "compute.googleapis.com/Instance", True),
        ("projects/p/zones/z/instances/database-1", "compute.googleapis.com/Instance", False),
        ("projects/p/zones/z/instances/my-baton-1", "compute.googleapis.com/Instance", False),
        ("projects/p/zones/z/disks/anything", "compute.googleapis.com/Disk", True),
        ("projects/p", "cloudresourcemanager.googleapis.com/Project", True),
    ],
)
def test_the_watchdogs_condition_is_about_names_of_vms(name: str, type: str, allowed: bool) -> None:
    assert holds(ONLY_OURS, Resource(name, type)) is allowed


def test_no_condition_has_a_comma_where_gcloud_would_cut_it() -> None:
    conditions = [names.condition(BUCKET) for places in WRITES.values() for names in places]
    assert not [one for one in (*conditions, ONLY_OURS) if "," in one]
