"""What is asked about a claim's VM is of that VM: not of another that has its name, nor of one that had it before."""

from dataclasses import replace

from fake_cloud import NO_CLOUD, FakeCloud
from seen import INSERTED, NOW_S, URI, claim, operation, vm

from infra.cloud.types import Operation, OperationKind
from infra.naming import run_labels
from infra.watch.looks import look_up, operations_of
from infra.watch.observed import Foreign, Unknown

LABELS = run_labels(URI, 1)
UNSEEN = claim(instance_id=None)
OWN = replace(INSERTED, name="own", request_id=UNSEEN.request_id or "")
TAKEN_BACK = operation(OperationKind.PREEMPTED, name="taken back")
OLD = (
    replace(INSERTED, name="old", instance_id="7", at_s=NOW_S - 90_000, request_id="another"),
    operation(OperationKind.DELETE, "alice@x", name="old end", instance_id="7", ago_s=80_000),
)


class Remembering(FakeCloud):
    """Tells operations as Compute Engine does: the platform's own by the VM's number only."""

    def __init__(self, *operations: Operation) -> None:
        super().__init__()
        self.done = operations

    def operations(self, zone: str, name: str, instance_id: str | None = None) -> tuple[Operation, ...]:
        self._ask("operations", instance_id or name)
        by_name = (OperationKind.INSERT, OperationKind.DELETE)
        return tuple(
            op for op in self.done if (op.kind in by_name if instance_id is None else op.instance_id == instance_id)
        )


def test_what_was_done_to_a_vm_of_that_name_before_is_not_told() -> None:
    assert operations_of(Remembering(*OLD), UNSEEN) == ()
    assert operations_of(Remembering(*OLD, OWN, TAKEN_BACK), UNSEEN) == (OWN, TAKEN_BACK)
    known = Remembering(*OLD, OWN, TAKEN_BACK)
    assert operations_of(known, claim()) == (OWN, TAKEN_BACK)
    assert known.asked == [("operations", "1001")], "its number is known: one request"


def test_operations_that_cannot_be_asked_for_are_unknown() -> None:
    down = Remembering(OWN)
    down.troubles["operations"] = NO_CLOUD
    assert isinstance(operations_of(down, UNSEEN), Unknown)


def test_a_vm_of_the_name_is_the_claims_a_strangers_or_one_that_came_later() -> None:
    cloud = FakeCloud()
    assert look_up(cloud, UNSEEN, LABELS) is None
    own = cloud.vms[vm().name] = vm(labels={**LABELS, "team": "mine"})
    assert look_up(cloud, UNSEEN, LABELS) == look_up(cloud, claim(), LABELS) == own
    bare = cloud.vms[own.name] = vm(labels={**LABELS, "baton-attempt": "2"})
    assert look_up(cloud, UNSEEN, LABELS) == look_up(cloud, claim(), LABELS) == Foreign(bare)
    assert look_up(cloud, claim(instance_id="999"), LABELS) is None, "the claim's own has gone"
    cloud.troubles["get_vm"] = NO_CLOUD
    assert isinstance(look_up(cloud, UNSEEN, LABELS), Unknown)
