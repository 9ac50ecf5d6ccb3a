"""How a container ended as the VM around it tells it: also when nothing in the container could say a word."""

from typing import Literal

from job.run.layout import exit_name
from job.run.records import Record
from job.storage import Bucket


class ContainerExit(Record):
    """attempts/NNNN/exit.json, written by the VM's unit in shell (infra/vm/). A VM may write nonsense: it stops or
    delays a machine at most."""

    exit_code: int
    reason: Literal["exit", "out of memory", "sick gpu", "pull", "boot"] = "exit"
    """`exit`: the container's own code. The others never reached it, or ended it."""
    detail: str = ""
    at_s: float
    """Seconds since the epoch, by the VM's clock."""


def read_exit(bucket: Bucket, attempt: int) -> tuple[ContainerExit, float] | None:
    """The exit and the bucket's time of it (seconds since the epoch), None before it."""
    found = ContainerExit.read(bucket, exit_name(attempt))
    return None if found is None else (found[0], found[1].updated_s)
