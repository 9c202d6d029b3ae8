"""A one-page report: figures, tables and plots as an HTML page that needs nothing else, and the
same as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from residency.core.files import write_text
from residency.core.types import Value

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class Section(Value, frozen=True):
    """A heading with a sentence, a table, a plot, or all three."""

    title: str
    text: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    """Cells as they are shown; the first of a row names it."""
    numeric: tuple[int, ...] = ()
    """Positions of columns that are set flush right."""
    svg: str = ""
    """A plot, drawn by the program; only shown in the HTML page."""
    caption: str = ""


class Page(Value, frozen=True):
    """What a step tells a reader. Holds only what may be shown: whoever makes it decides that."""

    title: str
    eyebrow: str = ""
    """What kind of page, and of when."""
    lead: str = ""
    """The result in a sentence or two."""
    facts: tuple[tuple[str, str], ...] = ()
    """(name, value) of the figures at the top."""
    caveats: tuple[str, ...] = ()
    sections: tuple[Section, ...] = ()
    lang: str = "en"


def style() -> str:
    """The look that all reports share, as CSS."""
    return (TEMPLATES / "report.css").read_text("utf-8")


def cleaned(value: object) -> object:
    """A text without control characters, which neither HTML nor a terminal may be given; markup
    that a template made itself, and what is no text, as it is."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return CONTROL.sub(" ", value)
    return value


def environment(folder: Path, finalize: Callable[[object], object] = cleaned) -> Environment:
    """The templates of a folder: every value is escaped, and goes through ``finalize`` first."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize,
    )


def write_page(page: Page, folder: Path, name: str = "report") -> Path:
    """Write NAME.html and NAME.md into a folder, each whole or not at all; the path of the HTML
    page.

    Raises ``UserError`` where the folder cannot be written.
    """
    html = environment(TEMPLATES).get_template("page.html.jinja").render(page=page, style=style())
    write_text(folder / f"{name}.html", html)
    write_text(folder / f"{name}.md", markdown(page))
    return folder / f"{name}.html"


def markdown(page: Page) -> str:
    """The page for a terminal, a mail or a pull request; plots are left out."""
    lines = [f"# {escape_markdown(page.title)}", ""]
    for text in (page.eyebrow, page.lead):
        lines += [escape_markdown(text), ""] if text else []
    lines += [
        f"- {escape_markdown(name)}: {escape_markdown(value)}" for name, value in page.facts
    ] + [""] * bool(page.facts)
    lines += [f"> {escape_markdown(caveat)}" for caveat in page.caveats] + [""] * bool(page.caveats)
    for section in page.sections:
        lines += [f"## {escape_markdown(section.title)}", ""]
        for text in (section.text, section.caption):
            lines += [escape_markdown(text), ""] if text else []
        if section.rows:
            rules = [
                "---:" if position in section.numeric else "---"
                for position in range(len(section.columns))
            ]
            rows = [section.columns, *section.rows]
            table = ["| " + " | ".join(map(escape_markdown, row)) + " |" for row in rows]
            lines += [table[0], "|" + "|".join(rules) + "|", *table[1:], ""]
    return "\n".join(lines).rstrip() + "\n"


def escape_markdown(text: str) -> str:
    """Text of one Markdown line or table cell: no markup, link, HTML or line break comes from the
    data."""
    text = re.sub(r"\s+", " ", CONTROL.sub(" ", text))
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    text = re.sub(r"<(?! )", "&lt;", text)  # "p < 0.001" stays as it is
    text = re.sub(r"([\\`*|$~])|\](?=[(\[:])", lambda found: "\\" + found[0], text)
    return re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
