"""What an engine's complaint means, in one line for people."""

import re
from collections.abc import Sequence

from job.errors import BatonError, NeedsPerson, Transient, UsageError

GB = 1e9
NEEDS_GB = {"slim": 3, "train-cpu": 8, "train": 30}
"""What a first build takes on disk at its height: the layers, and one more copy of the largest while it is made."""
PLATFORM = "linux/amd64"
"""The locks' only one."""

_FULL = re.compile(r"no space left on device|disk quota exceeded", re.IGNORECASE)
_OTHER_PROCESSOR = re.compile(r"exec format error|does not match the expected platform|no image found in .* for arch")
_NO_SUCH_DIGEST = re.compile(r"manifest unknown|manifest invalid|not found: manifest|no such manifest", re.IGNORECASE)
_NOT_ALLOWED = re.compile(r"unauthorized|denied|authentication required", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"dial tcp|no such host|i/o timeout|tls handshake|connection refused|connection reset|network is unreachable|"
    r"failed to resolve source metadata|name resolution|server misbehaving|pinging container registry",
    re.IGNORECASE,
)


def explain(output: str, *, doing: str, image: str = "") -> BatonError:
    """The error for a failed engine command, from all that it printed; pure."""
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "it said nothing")
    if _FULL.search(output):
        return NeedsPerson(
            f"{doing}: the disk is full.", fix="Free some space; the engine's own leftovers: `podman system prune`."
        )
    if _OTHER_PROCESSOR.search(output):
        return NeedsPerson(
            f"{doing}: {image or 'the image'} is for another processor than {PLATFORM}, or this machine's is another.",
            fix="Use a machine or a base image for x86-64; the locked packages are for it only.",
        )
    if _NO_SUCH_DIGEST.search(output):
        return UsageError(
            f"{doing}: the registry has no {image or 'such image'}.",
            fix="Compare the digest with what `make image-push` printed; a registry may have deleted it.",
        )
    if _NOT_ALLOWED.search(output):
        return NeedsPerson(
            f"{doing}: the registry refuses {image or 'it'} to this user.",
            fix="Log in: gcloud auth configure-docker HOST, or `docker login HOST`.",
        )
    if _UNREACHABLE.search(output):
        return Transient(
            f"{doing}: {image or 'a registry'} cannot be reached ({last[-200:]}).",
            fix="Check network and name; BASE_IMAGE names another base.",
        )
    return BatonError(f"{doing} failed: {last[-300:]}")


def check_disk(target: str, free_bytes: int, folder: str) -> None:
    """Raises NeedsPerson when the engine's storage has too little space for a first build of the target; pure."""
    if free_bytes < NEEDS_GB[target] * GB:
        raise NeedsPerson(
            f"The disk is too full to build {target}: {folder} has {free_bytes / GB:.1f} GB free, "
            f"it takes {NEEDS_GB[target]} GB.",
            fix="Free some space, or let the engine store elsewhere.",
        )


def check_platform(architectures: Sequence[str], image: str) -> None:
    """Raises NeedsPerson for an image that is not for x86-64; pure."""
    if architectures and "amd64" not in architectures:
        raise NeedsPerson(
            f"{image} is for {', '.join(architectures)}; Baton's image is {PLATFORM} only.",
            fix="Name a base image for x86-64: BASE_IMAGE=NAME@sha256:...",
        )


def refuses_zstd(what: str) -> bool:
    """Whether a push failed for the layers' compression; pure."""
    return re.search(r"manifest invalid|unsupported media type|MANIFEST_INVALID|415", what) is not None
