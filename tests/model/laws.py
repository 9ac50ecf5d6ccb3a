"""What must hold of the bucket, told from its objects alone: the formats are read here by code of their own."""

import json
import re
from functools import cache
from typing import Any

from .bucket import HEAD, LATE, Bucket, Request, Stored, crc32c
from .stepping import Node, Outcome
from .writers import LAST_STEP, weights

CLAIMS = "control/claims.json"
FOLDER = re.compile(r"checkpoints/\d{6}-(\d{4})-[0-9a-f]{8}")


@cache
def parsed(data: bytes) -> Any:
    """JSON; the same contents come again and again."""
    return json.loads(data)


def head_of(bucket: Bucket) -> dict[str, Any] | None:
    """head.json, None where there is none."""
    stored = bucket.objects.get(HEAD)
    return None if stored is None else parsed(stored.data)


def owner_of(head: dict[str, Any] | None) -> tuple[int, int]:
    """(attempt, incarnation); the least where there is none."""
    return (0, 0) if head is None else (head["attempt"], head["incarnation"])


def lacks(bucket: Bucket, folder: str, manifest_crc32c: int | None, *, damage_counts: bool) -> str | None:
    """What a folder with a MANIFEST lacks to be whole, None for nothing. Damage is the store's doing, not ours."""

    def wrong(stored: Stored | None, size_bytes: int | None, crc: int | None) -> bool:
        if stored is None or (stored.damaged and damage_counts):
            return True
        if stored.damaged:
            return False
        return size_bytes not in (None, len(stored.data)) or crc not in (None, crc32c(stored.data))

    name = f"{folder}/MANIFEST.json"
    manifest = bucket.objects.get(name)
    if wrong(manifest, None, manifest_crc32c):
        return name
    assert manifest is not None
    if manifest.damaged:
        return None
    for file, said in parsed(manifest.data)["files"].items():
        if wrong(bucket.objects.get(f"{folder}/{file}"), said["size_bytes"], said["crc32c"]):
            return f"{folder}/{file}"
    return None


def ref_lacks(bucket: Bucket, ref: dict[str, Any], *, damage_counts: bool) -> str | None:
    """The same of a checkpoint that head lists, with its addition."""
    lacking = lacks(bucket, ref["folder"], ref["manifest_crc32c"], damage_counts=damage_counts)
    if lacking is None and ref["addition"] is not None:
        folder = f"{ref['folder']}/{ref['addition']}"
        lacking = lacks(bucket, folder, ref["addition_crc32c"], damage_counts=damage_counts)
    return lacking


def is_good(bucket: Bucket, ref: dict[str, Any]) -> bool:
    """Whether a checkpoint that head lists can be restored; its addition is another matter."""
    return lacks(bucket, ref["folder"], ref["manifest_crc32c"], damage_counts=True) is None


def broken_by(before: Bucket, after: Bucket, request: Request) -> str | None:
    """The law that a change of the bucket breaks, None for none."""
    if before is after:
        return None
    if request.name == HEAD:
        return _head(before, after)
    if request.name == CLAIMS:
        return _claims(before, after)
    if request.name.startswith("checkpoints/"):
        return _checkpoints(before, after, request)
    if request.name.startswith("result/"):
        return _result(before, after, request)
    return None


def _head(before: Bucket, after: Bucket) -> str | None:
    old, new = head_of(before), head_of(after)
    if new is None:
        return "head was deleted"
    refs = new["kept"]
    if new["checkpoint"] != (refs[0] if refs else None):
        return "head's checkpoint is not the first of kept"
    if [ref["step"] for ref in refs] != sorted({ref["step"] for ref in refs}, reverse=True):
        return "kept is not newest first"
    known = [] if old is None else old["kept"]
    for ref in refs:
        if ref not in known and (lacking := ref_lacks(after, ref, damage_counts=False)) is not None:
            return f"head names an incomplete checkpoint: {lacking}"
    if old is None:
        return None
    if owner_of(new) < owner_of(old):
        return f"head's owner falls from {owner_of(old)} to {owner_of(new)}"
    if owner_of(new) == owner_of(old) and before.objects[HEAD].by != after.objects[HEAD].by:
        return f"two processes publish as {owner_of(new)}"
    if old["status"] == "finished":
        return "head changes after it was finished"
    if old["status"] == "finishing" and new["status"] not in ("finishing", "finished"):
        return f"head goes from finishing to {new['status']}"
    if known and (not refs or refs[0]["step"] < known[0]["step"]) and is_good(before, known[0]):
        return "head's step falls though its checkpoint is good"
    stay = {ref["folder"] for ref in refs}
    steps = {ref["step"] for ref in refs}
    given_up = [ref for ref in known if ref["folder"] not in stay and ref["step"] not in steps and is_good(before, ref)]
    if given_up and len(refs) < 2:
        return f"kept has {len(refs)} left, and {given_up[0]['folder']}, which is good, is dropped"
    if new["status"] == "finished":
        result = after.objects.get("result/MANIFEST.json")
        if result is None or lacks(after, "result", None, damage_counts=False) is not None:
            return "head says finished, and the result is not whole"
        if parsed(result.data)["checkpoint"]["folder"] != refs[0]["folder"]:
            return "head says finished, and the result says that it comes from another checkpoint"
    return None


def _claims(before: Bucket, after: Bucket) -> str | None:
    if CLAIMS not in after.objects:
        return "the claims were deleted"
    nothing = {"want": "run", "attempts": []}
    old = parsed(before.objects[CLAIMS].data) if CLAIMS in before.objects else nothing
    new = parsed(after.objects[CLAIMS].data)
    count = len(old["attempts"])
    if new["attempts"][:count] != old["attempts"]:
        return "a claim that was there is changed or gone"
    if [claim["number"] for claim in new["attempts"]] != list(range(1, len(new["attempts"]) + 1)):
        return "the numbers of the claims are not 1, 2, 3..."
    if len(new["attempts"]) > count and old["want"] != "run":
        return "an attempt is claimed though the run is not wanted"
    if len(new["attempts"]) > count + 1 or (len(new["attempts"]) > count and old["want"] != new["want"]):
        return "one change of the claims makes two"
    return None


def _checkpoints(before: Bucket, after: Bucket, request: Request) -> str | None:
    head = head_of(before)
    kept = [] if head is None else head["kept"]
    found = FOLDER.match(request.name)
    if found is None:
        return f"no checkpoint has such a name: {request.name}"
    if request.method == "write" and request.name in before.objects:
        return f"{request.name} is overwritten"
    if request.method == "delete":
        for ref in kept:
            addition = f"{ref['folder']}/scored-"
            mine = f"{ref['folder']}/{ref['addition']}/"
            if request.name.startswith(f"{ref['folder']}/") and (
                not request.name.startswith(addition) or request.name.startswith(mine)
            ):
                return f"{request.name} is deleted though head keeps it"
    if int(found[1]) < owner_of(head)[0] and not any(request.name.startswith(ref["folder"]) for ref in kept):
        return None  # of an attempt that is over: nobody will ever look at it
    folder = request.name.rpartition("/")[0]
    manifest = after.objects.get(f"{folder}/MANIFEST.json")
    if manifest is not None and manifest.by != LATE:  # its writer had given that folder up
        lacking = lacks(after, folder, None, damage_counts=False)
        if lacking is not None:
            return f"a MANIFEST stands there without what it lists: {lacking}"
    return None


def _result(before: Bucket, after: Bucket, request: Request) -> str | None:
    head = head_of(before)
    if head is None or head["status"] not in ("finishing", "finished"):
        return "a result is written before head says finishing"
    if head["status"] == "finished":
        return f"{request.name} changes after the run was finished"
    if request.name == "result/weights" and request.data != weights(LAST_STEP):
        return "the result is not what was trained"
    return None


def broken_at_end(bucket: Bucket, node: Node, outcome: Outcome, *, trouble: bool) -> str | None:
    """The law that the end of an operation breaks: it says what is not true, or has not done what it says."""
    head, writer, name = head_of(bucket), node.writer, node.name
    said = f"{name} ended with {outcome.kind}"
    if len(_claimed(node, bucket)) > 1:
        return f"{name} claimed the numbers {_claimed(node, bucket)}"
    kept = [] if head is None else head["kept"]
    claims = parsed(bucket.objects[CLAIMS].data) if CLAIMS in bucket.objects else {"want": "run", "attempts": []}
    match outcome.kind:
        case "Transient":
            return None if trouble else f"{said} where nothing went wrong"
        case "Fenced":
            newest = claims["attempts"][-1]["number"] if claims["attempts"] else 0
            mine = (
                (max(_claimed(node, bucket), default=writer.number or 0), -1)
                if writer.owning is None
                else writer.owning.head.owner
            )
            return None if owner_of(head) > mine or newest > mine[0] else f"{said}, and nobody else has the run"
        case "UsageError":
            return None if head is not None and head["status"] == "finished" else f"{said}: {outcome.words}"
        case "NeedsPerson":
            unwanted = claims["want"] != "run" and name == "begin"
            none_good = bool(kept) and not any(is_good(bucket, ref) for ref in kept)
            return None if unwanted or none_good else f"{said}, and nothing is wrong: {outcome.words}"
        case "finished":
            return None if head is not None and head["status"] == "finished" else f"{said}, and head does not say so"
    if outcome.kind not in ("ok", "released"):
        return f"{said}: {outcome.words}"
    for folder in outcome.quarantined:
        if (at_fault := _slandered(bucket, kept, folder)) is not None:
            return f"{at_fault} is called bad, and is good"
    owns = writer.owning is not None and owner_of(head) == writer.owning.head.owner
    if owns and name in ("save", "score") and (kept[0]["step"] if kept else 0) != outcome.step:
        return f"{said}, and head does not name step {outcome.step}"
    return None


def _claimed(node: Node, bucket: Bucket) -> list[int]:
    """The numbers that an operation has claimed: those of its writes that have come to be part of the claims."""
    if CLAIMS not in bucket.objects or node.name != "begin":
        return []
    there = parsed(bucket.objects[CLAIMS].data)
    wrote = [parsed(request.data) for request in node.asked if (request.method, request.name) == ("write", CLAIMS)]
    return sorted({len(w["attempts"]) for w in wrote if w["write_id"] in (there["write_id"], *there["earlier"])})


def _slandered(bucket: Bucket, kept: list[dict[str, Any]], folder: str) -> str | None:
    """A folder that was found bad, where it is good and still listed."""
    for ref in kept:
        if ref["folder"] == folder and is_good(bucket, ref):
            return folder
        addition = f"{ref['folder']}/{ref['addition']}"
        if addition == folder and lacks(bucket, folder, ref["addition_crc32c"], damage_counts=True) is None:
            return folder
    return None


def broken_by_rest(bucket: Bucket, outcome: Outcome) -> str | None:
    """The law that a restore from the bucket as it lies there breaks."""
    head = head_of(bucket)
    good = [ref["step"] for ref in (head["kept"] if head else []) if is_good(bucket, ref)]
    if head is None or not head["kept"]:
        return None if (outcome.kind, outcome.step) == ("ok", None) else f"nothing is there, and {outcome} came back"
    if not good:
        return None if outcome.kind == "NeedsPerson" else f"no checkpoint is good, and the restore says {outcome}"
    return None if (outcome.kind, outcome.step) == ("ok", good[0]) else f"step {good[0]} is good; restored: {outcome}"
