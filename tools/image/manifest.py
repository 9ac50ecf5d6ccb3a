"""The manifest that a registry on this machine keeps of an image: what would travel when it is pulled."""

import hashlib
import json
import urllib.request
from dataclasses import dataclass
from typing import Any

from job.errors import UsageError
from tools.image.orders import digest_in, tls

KINDS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


@dataclass(frozen=True)
class Layer:
    """One that travels."""

    digest: str
    size_bytes: int
    """Compressed."""
    compression: str
    """zstd or gzip."""
    made_by: str
    """The line of the Dockerfile, as the engine notes it."""


def layers(image: str) -> list[Layer]:
    """The layers of NAME@DIGEST, the lowest first. Raises UsageError for a registry elsewhere."""
    digest = digest_in(image, image)
    manifest = json.loads(_get(image, f"manifests/{digest}", digest))
    config = json.loads(_get(image, f"blobs/{manifest['config']['digest']}", manifest["config"]["digest"]))
    made = [entry.get("created_by", "") for entry in config["history"] if not entry.get("empty_layer")]
    return [
        Layer(one["digest"], one["size"], "zstd" if one["mediaType"].endswith("zstd") else "gzip", made_by)
        for one, made_by in zip(manifest["layers"], made, strict=True)
    ]


def short(made_by: str) -> str:
    """What a layer holds, in a few words; pure."""
    words = made_by.replace("/bin/sh -c ", "").replace("#(nop) ", "").split("#")[0]
    if "install.sh" in words:
        return words[words.index("install.sh") :].partition(";")[0].replace("install.sh", "packages:").strip()
    return " ".join(words.split())[:60]


def _get(image: str, path: str, digest: str) -> bytes:
    if not tls(image):
        raise UsageError(f"{image} is not on this machine.", fix="`skopeo inspect` reads any registry.")
    host, _, repository = image.partition("@")[0].partition("/")
    request = urllib.request.Request(f"http://{host}/v2/{repository}/{path}", headers={"Accept": ",".join(KINDS)})
    with urllib.request.urlopen(request, timeout=60) as answer:
        body: Any = answer.read()
    if f"sha256:{hashlib.sha256(body).hexdigest()}" != digest:
        raise UsageError(f"{image}: {path} is not what its digest says.")
    return bytes(body)
