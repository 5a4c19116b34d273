"""Markdown as the project's pages have it: prose in lines of at most 100 columns."""

import re
import textwrap

COLUMNS = 100
AS_IT_IS = re.compile(r"\s*(\||#|!\[|```)| {4}")  # tables, headings, pictures, code


def wrapped(text: str) -> str:
    """Break the long lines of prose, outside code blocks; a list's items keep their indent."""
    lines, code = [], False
    for line in text.split("\n"):
        code ^= line.startswith("```")
        item = re.match(r"(?:[-*]|\d+\.) ", line)
        lines += [line] if code or AS_IT_IS.match(line) or len(line) <= COLUMNS else textwrap.wrap(
            line, COLUMNS, subsequent_indent=" " * len(item[0]) if item else "", break_long_words=False,
            break_on_hyphens=False)
    return "\n".join(lines)
