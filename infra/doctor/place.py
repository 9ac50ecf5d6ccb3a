"""What the doctor is asked about: a project, its bucket, and a recipe that is to run there."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from infra.doctor.finding import Finding, NotKnown
from infra.doctor.google import Google
from infra.naming import SCHEME
from job.settings import Settings
from job.settings.environment import Environment


@dataclass(frozen=True)
class Place:
    """All that checks start from. Nothing is contacted before a check asks."""

    environment: Environment
    named_project: str | None
    set_in: Mapping[str, str]
    """Where each secret that is set here is set, by its variable; not what it is."""
    settings: Settings | None
    """Of the recipe; None: none was named."""
    gpu: str | None
    """Its name in machines.toml; None: none was named."""
    now_s: float

    @property
    def project(self) -> str:
        """The project. Raises NotKnown where none is named."""
        if self.named_project is None:
            raise NotKnown("no project is named")
        return self.named_project

    @property
    def bucket(self) -> str:
        """The bucket's name. Raises NotKnown where none is named, or one that is no bucket of Cloud Storage."""
        given = (self.environment.bucket or "").rstrip("/")
        if not given:
            raise NotKnown("no bucket is named")
        if not given.startswith(SCHEME):
            raise NotKnown(f"{given} is not in Cloud Storage")
        return given.removeprefix(SCHEME)

    @cached_property
    def google(self) -> Google:
        """The project's APIs. Raises NotKnown where no project is named."""
        return Google(self.project, os.environ)

    @cached_property
    def bucket_resource(self) -> Mapping[str, Any] | None:
        """The bucket as Cloud Storage describes it, None where it is not there. Raises NotKnown."""
        found: Mapping[str, Any] | None = self.google.get("storage", f"b/{self.bucket}")
        return found

    @property
    def region(self) -> str | None:
        """Where the bucket is, None where that is not known: something else tells why."""
        try:
            found = self.bucket_resource
        except NotKnown:
            return None
        return None if found is None else str(found.get("location", "")).lower() or None


@dataclass(frozen=True)
class Check:
    """Something that may be wrong."""

    name: str
    look: Callable[[Place], Finding]
    """The finding. Raises NotKnown or BatonError where it cannot be told."""
