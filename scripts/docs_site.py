"""A hook of mkdocs: links that leave docs/ (to code, to accounts of measurements) are words on the
site, which holds the pages alone."""

from __future__ import annotations

import posixpath
import re
from typing import Any


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with only those links that the site can follow."""
    folder = posixpath.join("docs", posixpath.dirname(page.file.src_uri))

    def kept(found: re.Match[str]) -> str:
        words, target = found[1], found[2]
        if "://" in target or target.startswith("#"):
            return found[0]
        place = posixpath.normpath(posixpath.join(folder, target.partition("#")[0]))
        inside = place.startswith("docs/") and place.endswith((".md", ".svg", ".png"))
        return found[0] if inside else f"{words} (`{place}`)"

    return re.sub(r"\[([^\]\[]+)\]\(([^)\s]+)\)", kept, markdown)
