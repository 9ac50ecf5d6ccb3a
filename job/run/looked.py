"""When somebody last looked after the run: a watchdog's word to the people, written over at each look."""

from job.run.layout import LOOKED
from job.run.records import Record
from job.storage import Bucket


class Looked(Record):
    """control/looked.json. Nothing is decided by it: a look that could not be written is only not told of."""

    watcher: str
    """Who: its VM, or host and process."""
    at_s: float
    """When it looked, seconds since the epoch."""
    next_at_s: float | None = None
    """When it means to look again; None when it will not."""
    note: str = ""
    """What it saw or waits for, for people: no capacity, tried where, next try when."""


def write_looked(bucket: Bucket, looked: Looked) -> None:
    """Writes over the look before."""
    bucket.write(LOOKED, looked.to_bytes())


def read_looked(bucket: Bucket) -> Looked | None:
    """The last look; None where nobody ever looked."""
    found = Looked.read(bucket, LOOKED)
    return None if found is None else found[0]
