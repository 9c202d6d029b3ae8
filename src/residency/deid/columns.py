"""Ages under the heading of a table's column (``Giường | Tuổi``), where nothing beside the number
says that it is one."""

from __future__ import annotations

import re
from collections.abc import Iterator

from residency.deid.find import Finding
from residency.deid.view import View

HEAD = re.compile(
    r"[\s*]*(?:(?:sex|gender|giới|gioi|性别)\s?/\s?)?(?:ages?|tuổi|tuoi|年龄|岁数)"
    r"(?:\s?[/(][^|\t\n]{0,14})?[\s*]*"
)
OVER_89 = re.compile(
    r"(?:\s|[mf男女]|nam|nữ|nu|[/,])*(9\d|1[0-4]\d)"
    r"(?:\s?(?:t|tuổi|tuoi|y|yo|yrs?|years?|[岁歲])?(?:\s|[mf男女]|nam|nữ|nu|[/,])*)?"
)
"""An age over 89 in a cell, and what may stand with it: a unit of years, the sex."""
LONGEST_HEAD = 40


def ages(view: View) -> Iterator[Finding]:
    """Ages over 89 in the cells below a heading that says age, up to a line without cells."""
    for mark in ("\t", "|"):
        if mark not in view.low:
            continue
        column, at = -1, 0
        for line in view.low.split("\n"):
            cells = line.split(mark)
            heads = [n for n, cell in enumerate(cells) if HEAD.fullmatch(cell[:LONGEST_HEAD])]
            if heads or len(cells) < 2:
                column = heads[0] if heads and len(cells) > 2 else -1
            elif 0 <= column < len(cells) and (match := OVER_89.fullmatch(cells[column])):
                start = at + len(mark.join(cells[:column])) + (column > 0)
                yield Finding(start + match.start(1), start + match.end(1), "age", "rule:columns")
            at += len(line) + 1
