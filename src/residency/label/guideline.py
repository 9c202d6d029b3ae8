"""The guideline of a card: what annotators read before they begin, on a page to print."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

from residency.core.errors import UserError, allowed
from residency.core.page import Page, Section
from residency.core.part import Part, parse
from residency.tasks.card import CARDS, Card

GUIDES = CARDS.parent / "guides"
LANGUAGES = ("en", "vi", "zh")


class LabelEntry(Part):
    """What is said of a label in one language."""

    title: str = ""
    definition: str = ""
    examples: tuple[str, ...] = ()
    """Invented, the span in brackets."""
    counter: tuple[str, ...] = ()
    """What looks like it and is not, and why."""


class Guide(Part):
    """The guideline of a card in one language; what it leaves out comes from the card."""

    description: str = ""
    attributes: dict[str, str] = {}
    """Attribute -> when to give it."""
    labels: dict[str, LabelEntry] = {}
    rules: tuple[str, ...] = ()
    """For the border between labels, and between something and nothing."""


@cache
def _words() -> dict[str, dict[str, str]]:
    """The words of the page, by language."""
    path = Path(__file__).parent / "data/guideline.yaml"
    found: dict[str, dict[str, str]] = yaml.safe_load(path.read_text("utf-8"))
    return found


def guides(name: str, root: Path) -> dict[str, Guide]:
    """The guideline of a card by language: packaged, or a file ``x.guide.yaml`` beside a card
    ``x.yaml``; none where there is none."""
    own = name.endswith((".yaml", ".yml"))
    path = (root / name).with_suffix(".guide.yaml") if own else GUIDES / f"{name}.yaml"
    if not path.is_file():
        return {}
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UserError(f"{path}: is not valid YAML in UTF-8.") from None
    return parse(dict[str, Guide], value, str(path))


def hints(card: Card, guide: Guide | None) -> dict[str, str]:
    """Label -> definition, in the guide's language where it has one."""
    entries = guide.labels if guide else {}
    return {
        label.name: entries.get(label.name, LabelEntry()).definition or label.definition
        for label in card.labels
    }


def guideline_page(card: Card, guide: Guide | None, lang: str) -> Page:
    """The guideline as a page; raises ``UserError`` for another language or a card without
    labels."""
    if lang not in LANGUAGES:
        raise UserError(f"--lang: {lang!r} is not known; {allowed(LANGUAGES, lang)}.")
    if not card.labels:
        raise UserError(
            f"card {card.name}: has no labels of its own, so there is nothing to define; write a "
            "card that names them."
        )
    words, guide = _words()[lang], guide or Guide()
    defined = hints(card, guide)
    rows = []
    for label in card.labels:
        entry = guide.labels.get(label.name, LabelEntry())
        title = entry.title or label.title
        name = f"{title} ({label.name})" if title and title != label.name else label.name
        examples, counter = " · ".join(entry.examples), " · ".join(entry.counter)
        rows.append((name, defined[label.name], examples, counter))
    columns = tuple(words[key] for key in ("label", "means", "example", "counter"))
    sections = [
        Section(title=words["how"], text=words["steps"]),
        Section(title=words["labels"], columns=columns, rows=tuple(rows)),
    ]
    if card.attributes:
        given = tuple((name, guide.attributes.get(name, "")) for name in card.attributes)
        sections.append(
            Section(title=words["attributes"], columns=("", words["means"]), rows=given)
        )
    if coded := [label.name for label in card.labels if label.coded]:
        sections.append(Section(title="ICD-10", text=words["code"].format(", ".join(coded))))
    if guide.rules:
        numbered = tuple((str(number), rule) for number, rule in enumerate(guide.rules, 1))
        sections.append(Section(title=words["rules"], columns=("", ""), rows=numbered))
    return Page(
        title=words["title"],
        eyebrow=card.name,
        lead=guide.description or card.description,
        sections=tuple(sections),
        lang=lang,
    )
