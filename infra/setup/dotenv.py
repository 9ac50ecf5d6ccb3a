"""What the commands read from `.env` afterwards: where things are, never what is secret. Pure."""

import re
from collections.abc import Mapping

_LINE = re.compile(r"\s*(?:export\s+)?([A-Z][A-Z0-9_]*)\s*=")


def merged(text: str, values: Mapping[str, str]) -> str:
    """The file with these values: a variable keeps its line, a new one comes at the end; all else stays as it is."""
    left, lines = dict(values), []
    for line in text.splitlines():
        found = _LINE.match(line)
        name = found[1] if found else ""
        if name in values:
            if name in left:
                lines.append(f"{name}={left.pop(name)}")
            continue
        lines.append(line)
    lines += [f"{name}={value}" for name, value in left.items()]
    return "".join(f"{line}\n" for line in lines)
