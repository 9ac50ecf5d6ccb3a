"""What all JSON objects of a run have in common: strict frozen models, read with one clear error, written once."""

from typing import Self

import tenacity
from pydantic import BaseModel, ConfigDict, ValidationError

from job.errors import NeedsPerson, Transient
from job.storage import Bucket, NotFound, ObjectInfo, PreconditionFailed

TRIES = 5
RETRY_WAIT_MAX_S = 2.0
AT_ONCE = 16  # a read from Cloud Storage takes 30 to 50 ms, nearly all of it waiting


class Record(BaseModel):
    """Base of everything that is written as one JSON object."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def to_bytes(self) -> bytes:
        """As it lies in the bucket: JSON that a person can read."""
        return self.model_dump_json(indent=2).encode() + b"\n"

    @classmethod
    def read(cls, bucket: Bucket, name: str) -> tuple[Self, ObjectInfo] | None:
        """The record and its object, None when there is none. NeedsPerson when it is not understood."""
        try:
            data, info = bucket.read(name)
        except NotFound:
            return None
        try:
            return cls.model_validate_json(data), info
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise NeedsPerson(
                f"{bucket.uri}/{name} cannot be read: {where + ': ' if where else ''}{first['msg']}.",
                fix="It is damaged, or another version of baton wrote it: use that one, or mend the file.",
            ) from None


def transient_retry(tries: int = TRIES) -> tenacity.Retrying:
    """A few tries, seconds in all, of what may safely be done twice; then the Transient goes on."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Transient),
        wait=tenacity.wait_random_exponential(multiplier=0.1, max=RETRY_WAIT_MAX_S),
        stop=tenacity.stop_after_attempt(tries),
        reraise=True,
    )


def create(bucket: Bucket, name: str, data: bytes) -> None:
    """Creates an object once, also when a reply is lost. Raises PreconditionFailed: another has the name."""
    replace(bucket, name, data, 0)


def replace(bucket: Bucket, name: str, data: bytes, generation: int) -> int:
    """Writes over the object's `generation` (0: there is none), also when a reply is lost; its new generation.

    Raises PreconditionFailed: another has written it.
    """

    def once() -> int:
        try:
            return bucket.write(name, data, if_generation=generation).generation
        except PreconditionFailed:
            try:
                found, info = bucket.read(name)
            except NotFound:
                raise PreconditionFailed(f"{name} is gone") from None
            if found != data:  # else it is an earlier try of this call whose reply was lost
                raise
            return info.generation

    return transient_retry()(once)
