"""The names of a run's objects in its bucket."""

import re

CLAIMS = "control/claims.json"
LOOKED = "control/looked.json"
HEAD = "head.json"
SPECS = "control/spec/"
EVENTS = "control/events/"
ATTEMPTS = "attempts/"
CHECKPOINTS = "checkpoints/"
BLOBS = "blobs/"
RESULT = "result"
MANIFEST = "MANIFEST.json"
RESULT_MANIFEST = f"{RESULT}/{MANIFEST}"

_SEGMENT = re.compile(rf"{ATTEMPTS}(?P<attempt>\d+)/(?P<kind>[a-z]+)/(?P<number>\d+)\.jsonl")
_CHECKPOINT = re.compile(rf"{CHECKPOINTS}(?P<step>\d+)-(?P<attempt>\d+)-[0-9a-f]+")


def spec_name(revision: int) -> str:
    """A revision of what is wanted."""
    return f"{SPECS}{revision:04d}.json"


def event_name(attempt: int, kind: str) -> str:
    """A transition that watchdogs have told people of."""
    return f"{EVENTS}{attempt:04d}-{kind}.json"


def attempt_folder(attempt: int) -> str:
    """Where one attempt writes, and nobody else; ends in a slash."""
    return f"{ATTEMPTS}{attempt:04d}/"


def attempt_name(attempt: int) -> str:
    """An attempt's record."""
    return f"{attempt_folder(attempt)}attempt.json"


def heartbeat_name(attempt: int) -> str:
    """An attempt's sign of life."""
    return f"{attempt_folder(attempt)}heartbeat.json"


def exit_name(attempt: int) -> str:
    """How the container ended, in the words of the VM around it."""
    return f"{attempt_folder(attempt)}exit.json"


def console_folder(attempt: int) -> str:
    """Where the VM ships what its boot and its container print, as text; ends in a slash."""
    return f"{attempt_folder(attempt)}console/"


def segment_folder(attempt: int, kind: str) -> str:
    """Where an attempt's segments of a kind (logs, events, metrics, samples, judge) lie; ends in a slash."""
    return f"{attempt_folder(attempt)}{kind}/"


def segment_name(attempt: int, kind: str, number: int) -> str:
    """One numbered segment."""
    return f"{segment_folder(attempt, kind)}{number:06d}.jsonl"


def parse_segment_name(name: str) -> tuple[int, str, int] | None:
    """(attempt, kind, number) of a segment, None for another object."""
    found = _SEGMENT.fullmatch(name)
    return None if found is None else (int(found["attempt"]), found["kind"], int(found["number"]))


def checkpoint_folder(step: int, attempt: int, nonce: str) -> str:
    """A checkpoint's folder, without a slash. A fresh nonce for every save: nothing is overwritten."""
    return f"{CHECKPOINTS}{step:06d}-{attempt:04d}-{nonce}"


def parse_checkpoint_folder(folder: str) -> tuple[int, int] | None:
    """(step, attempt) of a checkpoint's folder, None for another name."""
    found = _CHECKPOINT.fullmatch(folder)
    return None if found is None else (int(found["step"]), int(found["attempt"]))


def blob_name(sha256: str) -> str:
    """An object named by its content."""
    return f"{BLOBS}{sha256}"
