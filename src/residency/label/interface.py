"""What an annotator sees in Label Studio, as its XML made from the card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree as Xml

from residency.core.errors import DataError, UserError
from residency.core.files import csv_records
from residency.core.types import Value
from residency.tasks.card import Card

HUES = "0f857c b3702b 7d63b5 c0392b 2471a3 7d8b2f ad4f8a 4f6d7a a37b00 2e8b57 8e5b3a 5b6abf"
COLOURS = tuple(f"#{hue}" for hue in HUES.split())
OWN = "own"
"""The choice of whoever decides for neither candidate and marks it anew."""
KEYS = "1234567890qwertyuiopasdfghjkl"


class Code(Value, frozen=True):
    """An entry of a terminology."""

    code: str
    name: str


def read_codes(path: Path, columns: tuple[str, str]) -> list[Code]:
    """The entries of a CSV file, each code once.

    Raises ``UserError`` where there is no such file, ``DataError`` for a missing column or a code
    that stands twice with two names.
    """
    if not path.is_file():
        raise UserError(
            f"label.codes: {path} does not exist; give a CSV file with the columns "
            f"{' and '.join(columns)}."
        )
    found: dict[str, str] = {}
    advice = "name its columns with label.code_columns, e.g. [code, name]."
    for line, row in csv_records(path, columns, advice):
        code, name = (row[column] for column in columns)
        if not code or not name:
            raise DataError(
                f"{path}:{line}: has no code or no name; complete the row or leave it out."
            )
        if found.setdefault(code, name) != name:
            raise DataError(
                f"{path}:{line}: the code {code} stands twice with two names; keep one."
            )
    if not found:
        raise DataError(f"{path}: holds no codes.")
    return [Code(code=code, name=name) for code, name in found.items()]


def tree(codes: Sequence[Code]) -> list[tuple[Code, list[Code]]]:
    """Codes under their three-character category, as ICD-10 has them: (category, its subdivisions),
    in order.

    A subdivision whose category is not in the list stands by itself.
    """
    heads = {code.code for code in codes if "." not in code.code}
    found: dict[str, tuple[Code, list[Code]]] = {}
    for code in sorted(codes, key=lambda code: code.code not in heads):  # categories first
        head = code.code.partition(".")[0]
        if head in heads and head != code.code:
            found[head][1].append(code)
        else:
            found[code.code] = (code, [])
    return [found[key] for key in sorted(found)]


def items(codes: Sequence[Code]) -> dict[str, list[dict[str, object]]]:
    """Codes in the form that the interface fetches them in."""

    def leaf(code: Code) -> dict[str, object]:
        return {"value": f"{code.code} {code.name}", "alias": code.code, "isLeaf": True}

    return {
        "items": [
            {**leaf(head), "isLeaf": False, "children": [leaf(code) for code in below]}
            if below
            else leaf(head)
            for head, below in tree(codes)
        ]
    }


def interface(
    card: Card, hints: Mapping[str, str], codes_url: str = "", decides: bool = False
) -> str:
    """The label interface: the text, its labels with their definitions, attributes and code of the
    chosen region.

    ``hints`` has each label's definition, ``codes_url`` where the codes are fetched; ``decides`` is
    for disagreements: the candidates of a task are offered first.
    """
    view = Xml.Element("View")

    def add(tag: str, parent: Xml.Element = view, **attributes: str) -> Xml.Element:
        return Xml.SubElement(parent, tag, attributes)

    if decides:
        add("Header", value="$about", size="5")
        pick = add("Choices", name="decision", toName="text", value="$candidates")
        pick.attrib |= {"choice": "single-radio", "required": "true"}
        pick.set("requiredMessage", "Choose a candidate, or own and mark the text yourself.")
    labels = add("Labels", name="label", toName="text", showInline="true")
    for number, label in enumerate(card.labels):
        one = add("Label", labels, value=label.name, background=COLOURS[number % len(COLOURS)])
        if number < len(KEYS):
            one.set("hotkey", KEYS[number])
        if hint := hints.get(label.name, label.definition):
            one.set("hint", hint)
    box = add("View", style="line-height: 1.9; font-size: 1.05em")
    add("Text", box, name="text", value="$text", granularity="symbol", saveTextResult="yes")
    if card.attributes:
        chosen = add("Choices", name="attributes", toName="text", perRegion="true")
        chosen.attrib |= {"choice": "multiple", "showInline": "true"}
        chosen.set("visibleWhen", "region-selected")
        for name in card.attributes:
            add("Choice", chosen, value=name)
    coded = [label.name for label in card.labels if label.coded]
    if coded and codes_url:
        codes = add("Taxonomy", name="code", toName="text", perRegion="true", apiUrl=codes_url)
        codes.attrib |= {"maxUsages": "1", "placeholder": "code or name"}
        codes.attrib |= {"visibleWhen": "region-selected", "whenTagName": "label"}
        codes.attrib |= {"whenLabelValue": ",".join(coded), "minWidth": "420px"}
    Xml.indent(view)
    return Xml.tostring(view, encoding="unicode")
