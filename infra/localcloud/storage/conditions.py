"""Preconditions: what a request says of the generation that it wants to read or change."""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.localcloud.storage.errors import bad_request, condition_not_met, not_modified


@dataclass(frozen=True)
class Conditions:
    """Each is None where the request says nothing. An object that does not exist has generation 0."""

    generation_match: int | None = None
    generation_not_match: int | None = None
    metageneration_match: int | None = None
    metageneration_not_match: int | None = None

    def check(self, generation: int, metageneration: int) -> None:
        """Raises 412 for what does not match; 304, also for a change, for what does, or where nothing is there."""
        if self.generation_match not in (None, generation):
            raise condition_not_met()
        if self.metageneration_match not in (None, metageneration):
            raise condition_not_met()
        if self.generation_not_match is not None and generation in (0, self.generation_not_match):
            raise not_modified()
        if self.metageneration_not_match is not None and metageneration in (0, self.metageneration_not_match):
            raise not_modified()


NONE = Conditions()


def from_query(query: Mapping[str, str], of: str = "") -> Conditions:
    """The conditions in a JSON request's query; `of="Source"` for those on what is copied."""
    return Conditions(
        _number(query, f"if{of}GenerationMatch"),
        _number(query, f"if{of}GenerationNotMatch"),
        _number(query, f"if{of}MetagenerationMatch"),
        _number(query, f"if{of}MetagenerationNotMatch"),
    )


def from_headers(headers: Mapping[str, str]) -> Conditions:
    """The conditions in an XML request's headers."""
    return Conditions(
        _number(headers, "x-goog-if-generation-match"),
        None,
        _number(headers, "x-goog-if-metageneration-match"),
        None,
    )


def _number(values: Mapping[str, str], name: str) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if not text.isdecimal():
        raise bad_request(f"Invalid value for {name}: {text}")
    return int(text)
