"""What is in an image, layer by layer: read from the archive that an engine saves."""

import json
import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

SCANNED_BYTES = 4 * 1024 * 1024
"""Larger files are weights, libraries and the like: no key is that large."""
SETUID = 0o6000
SECRET_NAMES = re.compile(
    r"(^|/)(\.env(\.(?!example$)[^/]*)?|\.netrc|\.pypirc|\.git|\.git-credentials|id_(rsa|dsa|ecdsa|ed25519)|\.boto"
    r"|\.docker/config\.json|application_default_credentials\.json|\.huggingface/token|\.npmrc|kaggle\.json)$"
)
SECRET_BYTES = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s*[A-Za-z0-9+/=\s]{64}"
    rb"|\bhf_[A-Za-z0-9]{34}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bAKIA[0-9A-Z]{16}\b|\bya29\.[A-Za-z0-9_-]{40,}"
    rb"|\bAIza[0-9A-Za-z_-]{35}\b|\bsk-[A-Za-z0-9]{48}\b"
)
SIGNS = (b"PRIVATE KEY", b"hf_", b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"AKIA", b"ya29.", b"AIza", b"sk-")
"""One of these is in whatever SECRET_BYTES finds; looking for them is twenty times faster."""


@dataclass(frozen=True)
class File:
    """A file as one layer has it."""

    layer: int
    """0 is the lowest."""
    path: str
    """Without a leading slash."""
    mode: int
    size: int


@dataclass(frozen=True)
class Finding:
    """Something that no image of ours may hold."""

    layer: int
    path: str
    what: str


class Archive:
    """An image as `docker save` and `podman save --format docker-archive` write it. Use as a context manager."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path)  # noqa: SIM115
        manifest = json.loads(self._read("manifest.json"))[0]
        self.config: dict[str, Any] = json.loads(self._read(manifest["Config"]))
        self._layers: list[str] = manifest["Layers"]

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._tar.close()

    def layers(self) -> Iterator[tuple[int, tarfile.TarFile]]:
        """Each layer, the lowest first."""
        for number, name in enumerate(self._layers):
            with tarfile.open(fileobj=self._open(name)) as layer:
                yield number, layer

    def compressed_bytes(self, number: int) -> int:
        """About what a layer takes on its way, whichever the compression."""
        return len(zlib.compress(self._read(self._layers[number])))

    def commands(self) -> list[str]:
        """What made each layer."""
        made = [entry for entry in self.config["history"] if not entry.get("empty_layer")]
        return [entry.get("created_by", "") for entry in made]

    def _open(self, name: str) -> Any:
        # An engine that keeps one layer twice saves the second as a link.
        member = self._tar.getmember(name)
        return self._tar.extractfile(member)

    def _read(self, name: str) -> bytes:
        return cast(bytes, self._open(name).read())


def secrets(archive: Archive) -> list[Finding]:
    """Files that look like keys, in any layer, also where a layer above has deleted them; and in the image's own
    record: its environment, labels and the commands that built it.
    """
    found = [
        Finding(-1, "config", "looks like a key") for _ in SECRET_BYTES.findall(json.dumps(archive.config).encode())
    ]
    for number, layer in archive.layers():
        for member in layer:
            if SECRET_NAMES.search(member.name.removeprefix("./")):
                found.append(Finding(number, member.name, "is named like a secret"))
            elif member.isfile() and member.size <= SCANNED_BYTES:
                file = layer.extractfile(member)
                assert file is not None
                data = file.read()
                if any(sign in data for sign in SIGNS) and (match := SECRET_BYTES.search(data)):
                    found.append(Finding(number, member.name, f"holds what looks like a key: {match[0][:40]!r}"))
    return found


def files(archive: Archive) -> dict[str, File]:
    """The file system that a container sees: the layers on top of each other, what was deleted left out."""
    seen: dict[str, File] = {}
    for number, layer in archive.layers():
        for member in layer:
            path = member.name.removeprefix("./").rstrip("/")
            folder, _, name = path.rpartition("/")
            if name == ".wh..wh..opq":
                gone = f"{folder}/"
                seen = {other: file for other, file in seen.items() if not other.startswith(gone)}
            elif name.startswith(".wh."):
                gone = f"{folder}/{name.removeprefix('.wh.')}".removeprefix("/")
                seen = {o: file for o, file in seen.items() if o != gone and not o.startswith(f"{gone}/")}
            elif member.isfile() or member.islnk():
                seen[path] = File(number, path, member.mode, member.size)
    return seen


def sizes(archive: Archive) -> list[int]:
    """Bytes of the files in each layer."""
    return [sum(member.size for member in layer if member.isfile()) for _, layer in archive.layers()]
