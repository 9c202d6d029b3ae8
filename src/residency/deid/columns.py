"""What stands under the heading of a table's column (``Giường | Tuổi``), where nothing beside it
says what it is."""

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
    r"(?:\s|[mf男女]|nam|nữ|nu|[/,])*(?P<v>9 ?[\doil]|1[0-4]\d)"
    r"(?:\s?(?:t|tuổi|tuoi|y|yo|yrs?|years?|[岁歲])?(?:\s|[mf男女]|nam|nữ|nu|[/,])*)?"
)
"""An age over 89 in a cell, and what may stand with it: a unit of years, the sex."""
LONGEST_HEAD = 40


def ages(view: View) -> Iterator[Finding]:
    """Ages over 89 in the cells below a heading that says age."""
    for start, end in under(view.low, HEAD, OVER_89):
        yield Finding(start, end, "age", "rule:columns")


def under(text: str, head: re.Pattern[str], cell: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Where group v of ``cell`` stands in the cells below a heading, up to a line without cells."""
    for mark in ("\t", "|"):
        if mark not in text:
            continue
        column, at = -1, 0
        for line in text.split("\n"):
            cells = line.split(mark)
            heads = [n for n, one in enumerate(cells) if head.fullmatch(one[:LONGEST_HEAD])]
            if heads or len(cells) < 2:
                column = heads[0] if heads and len(cells) > 2 else -1
            elif 0 <= column < len(cells) and (match := cell.fullmatch(cells[column])):
                start = at + len(mark.join(cells[:column])) + (column > 0)
                yield start + match.start("v"), start + match.end("v")
            at += len(line) + 1
