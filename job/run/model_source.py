"""Which model exactly: the name in a recipe becomes something that cannot move. Torch-free: the laptop asks.

A Hugging Face name resolves to a commit, once, when a run begins; a local folder to the hash of its files.
"""

import errno
import hashlib
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

from job.errors import BatonError, NeedsPerson, Transient, UsageError

TINY = "tiny"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# What loading needs; no pickles, and no copies of the weights for other programs (they lie in subfolders).
_HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model", "spiece.model")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


@dataclass(frozen=True)
class ModelSource:
    """A model, pinned."""

    name: str
    """As the recipe has it."""
    kind: Literal["tiny", "folder", "hub"]
    revision: str | None = None
    """hub: the commit, 40 hex digits."""
    sha256: str | None = None
    """folder: the hash of its files (`hash_folder`). tiny: the same once it was made, None before."""
    path: Path | None = None
    """folder: where it lies."""

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"path": None if self.path is None else str(self.path)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """The inverse of `to_plain`."""
        return cls(**plain | {"path": None if plain.get("path") is None else Path(plain["path"])})


def resolve_model(name: str, revision: str | None = None, *, token: str | None = None) -> ModelSource:
    """Pins `name`: "tiny", a folder here, or a model on the Hugging Face Hub.

    The Hub is asked only when `revision` is not a commit yet. Raises UsageError (no such model or revision, a
    folder that cannot be used), NeedsPerson (no access), Transient (the Hub cannot be reached).
    """
    if name == TINY:
        return ModelSource(name, "tiny")
    folder = Path(name).expanduser()
    if folder.is_dir():
        check_model_folder(folder)
        return ModelSource(name, "folder", sha256=hash_folder(folder), path=folder.resolve())
    if _HUB_ID.fullmatch(name) is None:
        raise UsageError(
            f"model.name: there is no folder {name}.",
            fix='It is "tiny", a folder with config.json and *.safetensors, or a Hugging Face name such as '
            "Qwen/Qwen2.5-1.5B-Instruct.",
        )
    if revision is not None and _COMMIT.fullmatch(revision):
        return ModelSource(name, "hub", revision=revision)
    return ModelSource(name, "hub", revision=_ask_hub_for_commit(name, revision, token))


def check_model_folder(folder: Path, name: str | None = None) -> None:
    """Refuses a folder that lacks its config, safetensors or tokenizer, as the model `name`. Raises UsageError."""
    model = f"The model {name}" if name else f"The model folder {folder}"
    if not (folder / "config.json").is_file():
        raise UsageError(f"{model} has no config.json.", fix="Name the folder that the weights are in.")
    if not any(folder.glob("*.safetensors")):
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        found = f"only pickled weights ({pickles[0]})" if pickles else "no safetensors"
        raise UsageError(
            f"{model} has {found}.",
            fix="Pickles can run code and are never loaded: save it with model.save_pretrained(FOLDER).",
        )
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise UsageError(f"{model} has no tokenizer.", fix="tokenizer.save_pretrained(FOLDER) puts one beside it.")


def hash_folder(folder: Path) -> str:
    """sha256 over name and content of the files that loading reads (not hidden ones, not subfolders)."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        if path.is_file() and not path.name.startswith("."):
            with path.open("rb") as file:
                digest.update(f"{path.name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def download_model(source: ModelSource, token: str | None = None) -> Path:
    """The folder in Hugging Face's cache with the files of a hub model at its commit; fetches what is not there.

    Raises UsageError, NeedsPerson or Transient.
    """
    from huggingface_hub import snapshot_download  # 0.3 s that no other command should pay

    assert source.kind == "hub"
    assert source.revision is not None
    try:
        return Path(
            snapshot_download(
                source.name,
                revision=source.revision,
                token=token,
                allow_patterns=list(_HUB_FILES),
                ignore_patterns=["*/*"],
            )
        )
    except Exception as error:
        raise hub_error(source.name, source.revision, error) from error


def _ask_hub_for_commit(name: str, revision: str | None, token: str | None) -> str:
    from huggingface_hub import HfApi

    try:
        commit = HfApi(token=token).model_info(name, revision=revision, timeout=30).sha
    except Exception as error:
        raise hub_error(name, revision, error) from error
    if commit is None or _COMMIT.fullmatch(commit) is None:
        raise Transient(f"The Hugging Face Hub names no commit for {name}.")
    return commit


def hub_error(name: str, revision: str | None, error: Exception) -> BatonError:
    """What a failure of huggingface_hub means for the user. Raises what is not one of its failures."""
    from httpx import HTTPError
    from huggingface_hub import errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    if isinstance(error, errors.RevisionNotFoundError):
        return UsageError(f"model.revision: {name} has no revision {revision!r} on the Hugging Face Hub.")
    if isinstance(error, errors.GatedRepoError) or status in (401, 403):
        return NeedsPerson(
            f"The Hugging Face Hub gives no access to {name} (HTTP {status}): gated, private or not there.",
            fix=f"Check the name, accept the terms at https://huggingface.co/{name}, set HF_TOKEN to a token "
            "that may read it.",
        )
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        return UsageError(
            f"model.name: {name} is neither a folder here nor a model on the Hugging Face Hub.",
            fix="Check the spelling.",
        )
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return UsageError(f"{name} lacks a file on the Hugging Face Hub: {error}")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return NeedsPerson(f"The disk is full: {name} cannot be downloaded.", fix="HF_HOME names another folder.")
    if isinstance(error, OSError | HTTPError | errors.HfHubHTTPError):
        return Transient(
            f"The Hugging Face Hub cannot be reached for {name}: {type(error).__name__}"
            + (f" (HTTP {status})." if status else "."),
            fix="Try again later; without network, name a local folder in model.name.",
        )
    raise error
