"""The guideline of a card: what annotators read before they begin, on a page to print."""

from __future__ import annotations

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


WORDS = {
    "en": {
        "title": "Guideline for labelling",
        "labels": "Labels",
        "label": "label",
        "means": "what it means",
        "example": "examples",
        "counter": "not this",
        "attributes": "Attributes",
        "rules": "At the border",
        "how": "How to work",
        "steps": "Read the whole note once before marking. Mark what the note says, not what you "
        "conclude. Do not talk about notes with "
        "other annotators; put questions to whoever leads the work. Skip a note that you cannot "
        "judge.",
        "code": "Labels with a code: {}. Choose the most exact code that the note supports.",
    },
    "vi": {
        "title": "Hướng dẫn gán nhãn",
        "labels": "Nhãn",
        "label": "nhãn",
        "means": "nghĩa",
        "example": "ví dụ",
        "counter": "không phải",
        "attributes": "Thuộc tính",
        "rules": "Trường hợp ranh giới",
        "how": "Cách làm",
        "steps": "Đọc hết bệnh án một lần trước khi đánh dấu. Đánh dấu điều bệnh án ghi, không "
        "phải điều mình suy ra. Không trao đổi về bệnh "
        "án với người gán nhãn khác; có thắc mắc thì hỏi người phụ trách. Bỏ qua bệnh án mà mình "
        "không quyết định được.",
        "code": "Nhãn có mã: {}. Chọn mã chi tiết nhất mà bệnh án cho phép.",
    },
    "zh": {
        "title": "标注指南",
        "labels": "标签",
        "label": "标签",
        "means": "含义",
        "example": "示例",
        "counter": "不属于",
        "attributes": "属性",
        "rules": "边界情况",
        "how": "工作方式",
        "steps": "先通读全文再标注。标注病历所写，而不是自己的推断。不与其他标注员讨论病历；有疑问请问负责人。无法判断的病历可跳过。",
        "code": "需要编码的标签：{}。选择病历所支持的最具体的编码。",
    },
}


def guides(name: str, root: Path) -> dict[str, Guide]:
    """The guideline of a card by language: packaged, or a file ``x.guide.yaml`` beside a card
    ``x.yaml``; none where there is none."""
    path = (
        (root / name).with_suffix(".guide.yaml")
        if name.endswith((".yaml", ".yml"))
        else GUIDES / f"{name}.yaml"
    )
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
    """The guideline as a page; raises ``UserError`` for another language or a card without labels."""
    if lang not in LANGUAGES:
        raise UserError(f"--lang: {lang!r} is not known; {allowed(LANGUAGES, lang)}.")
    if not card.labels:
        raise UserError(
            f"card {card.name}: has no labels of its own, so there is nothing to define; write a "
            "card that names them."
        )
    words, entries = WORDS[lang], guide.labels if guide else {}
    defined = hints(card, guide)
    rows = []
    for label in card.labels:
        entry = entries.get(label.name, LabelEntry())
        title = entry.title or label.title
        rows.append(
            (
                f"{title} ({label.name})" if title and title != label.name else label.name,
                defined[label.name],
                " · ".join(entry.examples),
                " · ".join(entry.counter),
            )
        )
    sections = [Section(title=words["how"], text=words["steps"])]
    sections.append(
        Section(
            title=words["labels"],
            columns=(words["label"], words["means"], words["example"], words["counter"]),
            rows=tuple(rows),
        )
    )
    if card.attributes:
        told = guide.attributes if guide else {}
        sections.append(
            Section(
                title=words["attributes"],
                columns=("", words["means"]),
                rows=tuple((name, told.get(name, "")) for name in card.attributes),
            )
        )
    if coded := [label.name for label in card.labels if label.coded]:
        sections.append(Section(title="ICD-10", text=words["code"].format(", ".join(coded))))
    if guide and guide.rules:
        sections.append(
            Section(
                title=words["rules"],
                columns=("", ""),
                rows=tuple((str(number), rule) for number, rule in enumerate(guide.rules, 1)),
            )
        )
    return Page(
        title=words["title"],
        eyebrow=card.name,
        lead=(guide.description if guide else "") or card.description,
        sections=tuple(sections),
        lang=lang,
    )
