"""The `filter` of list requests: AIP-160 as Compute Engine has it, and the older `eq`/`ne` with regular expressions.

labels.baton=run AND status=RUNNING     (labels.a = "x") (name ne "y.*")     labels.owner:*     targetId=123
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

from infra.localcloud.errors import Refusal

Test = Callable[[dict[str, Any]], bool]
TOKEN = re.compile(r"""\s*(?:(?P<open>\()|(?P<close>\))|(?P<op>!=|<=|>=|=|<|>|:)|"(?P<quoted>(?:[^"\\]|\\.)*)"|"""
                   r"""'(?P<single>(?:[^'\\]|\\.)*)'|(?P<word>[^\s()=!<>:"']+))""")  # fmt: skip
WORD_OPERATORS = ("eq", "ne")


def compile_filter(text: str) -> Test:
    """Whether a resource is meant. Raises 400 for what is no filter."""
    if not text.strip():
        return lambda _: True
    parser = _Parser(_tokens(text), text)
    test = parser.alternatives()
    if parser.left:
        raise _invalid(text)
    return test


def _invalid(text: str) -> Refusal:
    return Refusal(400, "invalid", f"Invalid value for field 'filter': '{text}'. Invalid list filter expression.")


def _tokens(text: str) -> list[tuple[str, str]]:
    found, at = [], 0
    while at < len(text.rstrip()):
        match = TOKEN.match(text, at)
        if match is None:
            raise _invalid(text)
        kind = str(match.lastgroup)
        value = match[kind]
        found.append(("value" if kind in ("quoted", "single") else kind, re.sub(r"\\(.)", r"\1", value)))
        if kind in ("quoted", "single") and "\\" in value:
            found[-1] = ("value", value.replace('\\"', '"'))  # a regular expression keeps its backslashes
        at = match.end()
    return found


class _Parser:
    def __init__(self, tokens: list[tuple[str, str]], text: str) -> None:
        self.left = tokens
        self._text = text

    def alternatives(self) -> Test:
        tests = [self._sequence()]
        while self.left and self.left[0] == ("word", "OR"):
            self.left.pop(0)
            tests.append(self._sequence())
        return lambda item: any(test(item) for test in tests)

    def _sequence(self) -> Test:
        tests = [self._one()]
        while self.left and self.left[0][0] != "close" and self.left[0] != ("word", "OR"):
            if self.left[0] == ("word", "AND"):
                self.left.pop(0)
            tests.append(self._one())
        return lambda item: all(test(item) for test in tests)

    def _one(self) -> Test:
        kind, value = self._next()
        if kind == "word" and value in ("NOT", "-"):
            inner = self._one()
            return lambda item: not inner(item)
        if kind == "open":
            test = self.alternatives()
            if self._next()[0] != "close":
                raise _invalid(self._text)
            return test
        if kind not in ("word", "value"):
            raise _invalid(self._text)
        operator_kind, operator = self._next()
        if operator_kind != "op" and operator not in WORD_OPERATORS:
            raise _invalid(self._text)
        wanted_kind, wanted = self._next()
        if wanted_kind not in ("word", "value"):
            raise _invalid(self._text)
        return _comparison(value, operator, wanted, self._text)

    def _next(self) -> tuple[str, str]:
        if not self.left:
            raise _invalid(self._text)
        return self.left.pop(0)


def _comparison(field: str, operator: str, wanted: str, text: str) -> Test:
    path = field.split(".")
    if operator in WORD_OPERATORS:
        try:
            pattern = re.compile(wanted)
        except re.error:
            raise _invalid(text) from None
        return lambda item: (pattern.fullmatch(_text(_value(item, path))) is not None) == (operator == "eq")
    if operator == ":":
        return lambda item: _has(_value(item, path), wanted)
    return lambda item: _compare(_value(item, path), operator, wanted)


def _value(item: Any, path: list[str]) -> Any:
    for part in path:
        item = item.get(part) if isinstance(item, dict) else None
    return item


def _text(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _has(value: Any, wanted: str) -> bool:
    return value is not None if wanted == "*" else value is not None and wanted.lower() in _text(value).lower()


def _compare(value: Any, operator: str, wanted: str) -> bool:
    if operator in ("=", "!="):
        return (_text(value) == wanted) == (operator == "=")
    if value is None:
        return False
    order = _order(_text(value), wanted)
    return {"<": order < 0, ">": order > 0, "<=": order <= 0, ">=": order >= 0}[operator]


def _order(left: str, right: str) -> float:
    readers: tuple[Callable[[str], float], ...] = (float, lambda text: datetime.fromisoformat(text).timestamp())
    for read in readers:
        try:
            return read(left) - read(right)
        except ValueError:
            continue
    return (left > right) - (left < right)
