"""Containers and attestations pushed to a registry over its API: what `docker push` and actions/attest do there."""

import base64
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import httpx

from tests.infra.registry.own_sigstore import BUNDLE_TYPE

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
EMPTY = "application/vnd.oci.empty.v1+json"
AMD64, ARM64 = ("linux", "amd64"), ("linux", "arm64")
Descriptor = dict[str, Any]


class Pusher:
    """Pushes to one repository of a registry on loopback."""

    def __init__(self, host: str, name: str, headers: Mapping[str, str] | None = None) -> None:
        self.host, self.name = host, name
        self._client = httpx.Client(base_url=f"http://{host}", trust_env=False, headers=headers, timeout=10)

    def blob(self, data: bytes, media_type: str) -> Descriptor:
        """Uploads it; the descriptor by which manifests name it."""
        found = described(data, media_type)
        begun = self._client.post(f"/v2/{self.name}/blobs/uploads/")
        assert begun.status_code == 202, begun.text
        at = httpx.URL(begun.headers["Location"]).copy_merge_params({"digest": found["digest"]})
        done = self._client.put(at, content=data)
        assert done.status_code == 201, done.text
        return found

    def manifest(self, content: Mapping[str, Any], reference: str | None = None) -> Descriptor:
        """Uploads a manifest, under its digest or a tag."""
        data = json.dumps(content).encode()
        found = described(data, content["mediaType"])
        done = self._client.put(
            f"/v2/{self.name}/manifests/{reference or found['digest']}",
            content=data,
            headers={"Content-Type": content["mediaType"]},
        )
        assert done.status_code == 201, done.text
        return found

    def image(self, tag: str | None, platform: tuple[str, str] = AMD64, words: str = "") -> Descriptor:
        """A container for one platform."""
        config = json.dumps({"os": platform[0], "architecture": platform[1], "rootfs": {}, "words": words}).encode()
        return self.manifest(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self.blob(config, CONFIG),
                "layers": [self.blob(b"layer", LAYER)],
            },
            tag,
        )

    def index(self, tag: str, *platforms: tuple[str, str]) -> Descriptor:
        """A container for several platforms, with the entry that buildx adds for its own attestations."""
        found = [
            {**self.image(None, one), "platform": {"os": one[0], "architecture": one[1]}}
            for one in (*platforms, ("unknown", "unknown"))
        ]
        return self.manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": found}, tag)

    def attach(self, image: Descriptor, bundle: Mapping[str, Any], *, annotated: bool = True) -> None:
        """A Sigstore bundle of that container; without a referrers API it is listed by the tag that stands for them."""
        data = json.dumps(bundle).encode()
        about = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))["predicateType"]
        annotations = {"annotations": {"dev.sigstore.bundle.predicateType": about}} if annotated else {}
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": BUNDLE_TYPE,
            "config": self.blob(b"{}", EMPTY),
            "layers": [self.blob(data, BUNDLE_TYPE)],
            "subject": image,
            **annotations,
        }
        attached = {**self.manifest(manifest), "artifactType": BUNDLE_TYPE, **annotations}
        if self._client.get(f"/v2/{self.name}/referrers/{image['digest']}").status_code == 200:
            return
        tag = image["digest"].replace(":", "-")
        before = self._client.get(f"/v2/{self.name}/manifests/{tag}", headers={"Accept": INDEX})
        listed = before.json()["manifests"] if before.status_code == 200 else []
        self.manifest({"schemaVersion": 2, "mediaType": INDEX, "manifests": [*listed, attached]}, tag)


def described(data: bytes, media_type: str) -> Descriptor:
    """How a manifest names these bytes."""
    return {"mediaType": media_type, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}
