"""What is told about a VM: the last look, the phases of its boot, what it cost; none of it believes what a VM wrote."""

import pytest

from job.run.claims import Claim, How, SeenEnd
from job.run.console import VmPhase, read_phases, vm_phases
from job.run.costs import billed_s, claim_usd, spent_usd
from job.run.looked import Looked, read_looked, write_looked
from job.storage import Bucket

NOW_S = 1_790_000_000.0


def vm(
    how: How | None = None, ran_from_s: float | None = None, ended_s: float = NOW_S, usd: float | None = 3.6
) -> Claim:
    ended = None if how is None else SeenEnd(how=how, at_s=ended_s, ran_from_s=ran_from_s)
    return Claim(number=1, kind="vm", claimed_at_s=NOW_S - 100, vm="a", usd_per_hour=usd, ended=ended)


def test_the_last_look_is_read_back_and_nobody_ever_looked_is_none(bucket: Bucket) -> None:
    assert read_looked(bucket) is None
    for at_s in (NOW_S, NOW_S + 5):
        write_looked(bucket, Looked(watcher="laptop", at_s=at_s, next_at_s=at_s + 5, note="no capacity"))
    looked = read_looked(bucket)
    assert looked is not None
    assert (looked.watcher, looked.at_s, looked.next_at_s) == ("laptop", NOW_S + 5, NOW_S + 10)


def test_the_phases_of_a_boot_are_read_out_of_a_console_full_of_other_things(bucket: Bucket) -> None:
    text = (
        "Linux version 6.1\n"
        f"baton-phase boot {NOW_S:.6f}\n\x1b[31mred\n"
        f"baton-phase pull {NOW_S + 20:.0f}\r\nUnable to find image\n"
        f"baton-phase boot {NOW_S + 90:.0f}\n"  # after a restart
        "baton-phase container soon\nbaton-phase UPPER 1790000000\nsays: baton-phase driver 1790000000\n"
    )
    assert vm_phases(text) == (VmPhase("boot", NOW_S), VmPhase("pull", NOW_S + 20))
    bucket.write("attempts/0003/console/000001.log", text.encode() + b"\xff\xfe")
    assert read_phases(bucket, 3) == vm_phases(text)
    assert read_phases(bucket, 4) == ()


@pytest.mark.parametrize(
    ("claim", "paid_s"),
    [
        (vm("preempted", ran_from_s=NOW_S - 60), 60),
        (vm("stockout"), 0),
        (vm("preempted", ran_from_s=NOW_S + 60), 0),
        (vm(), 100),
        (Claim(number=1, kind="process", claimed_at_s=NOW_S - 100, usd_per_hour=3.6), 0),
    ],
)
def test_a_vm_is_paid_while_it_ran_and_an_open_claim_from_its_beginning(claim: Claim, paid_s: float) -> None:
    assert billed_s(claim, NOW_S) == paid_s
    assert claim_usd(claim, NOW_S) == (None if claim.kind == "process" else pytest.approx(paid_s / 1000))


def test_a_run_costs_what_its_vms_cost_as_far_as_prices_are_known() -> None:
    paid = [vm("preempted", ran_from_s=NOW_S - 50), vm(usd=None), vm()]
    assert spent_usd(paid, NOW_S) == pytest.approx(0.15)
