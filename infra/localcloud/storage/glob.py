"""matchGlob: the patterns that the JSON API lists objects by. Pure."""

import re


def glob_pattern(glob: str) -> re.Pattern[str]:
    """`*` and `?` stop at slashes, `**` does not; [a-z] and [!a-z]; {one,other}."""
    parts: list[str] = []
    at, depth = 0, 0
    while at < len(glob):
        letter = glob[at]
        if glob.startswith("**/", at):
            parts.append("(?:.*/)?")
            at += 2
        elif glob.startswith("**", at):
            parts.append(".*")
            at += 1
        elif letter == "[" and (end := glob.find("]", at + 2)) > 0:
            inner = glob[at + 1 : end].replace("\\", "\\\\")
            parts.append(f"[{'^' + inner[1:] if inner[0] in '!^' else inner}]")
            at = end
        elif letter == "{" and "}" in glob[at:]:
            parts.append("(?:")
            depth += 1
        elif letter == "}" and depth:
            parts.append(")")
            depth -= 1
        else:
            simple = {"*": "[^/]*", "?": "[^/]"} | ({",": "|"} if depth else {})
            parts.append(simple.get(letter, re.escape(letter)))
        at += 1
    return re.compile("".join(parts), re.DOTALL)
