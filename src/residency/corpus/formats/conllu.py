"""CoNLL-U Plus: columns with names, one of them the tags of entities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from residency.core.errors import DataError
from residency.core.files import text_lines
from residency.corpus.formats.conll import FEW, decode, detect, no_tag, row_of
from residency.corpus.reader import Row, Source, require

COLUMNS = "# global.columns ="


class Conllu(Source):
    """CoNLL-U Plus: ``# global.columns = ID FORM ...``, then a line for each token. Sentences
    become notes, with blanks as MISC says (``SpaceAfter=No``), documents (``# newdoc``) the groups.
    Tags are in BIO or BIOES. Ranges of tokens and empty nodes are passed over.
    """

    format: Literal["conllu"]
    token: str = "FORM"
    """Column of the tokens."""
    tag: str = "NER"
    """Column of the tags; with a prefix as in ``BIO:NER`` too."""

    def suffixes(self) -> tuple[str, ...]:
        return (".conllup", ".conllu")

    def rows(self, path: Path) -> Iterator[Row]:
        header: list[str] = []
        lines: list[tuple[int, list[str]]] = []
        document, found = 0, list[tuple[int, list[tuple[int, list[str]]]]]()
        for number, line in text_lines(path):
            line = line.rstrip("\r\n")
            if number == 1:
                if not line.startswith(COLUMNS):
                    raise DataError(
                        f"{path}: is no CoNLL-U Plus; its first line is {COLUMNS} ID FORM ..."
                    )
                header = line[len(COLUMNS) :].split()
                named = dict.fromkeys([*header, *(name.rpartition(":")[2] for name in header)])
                require(f"{path}:1", "column", named, [(self.token, "token"), (self.tag, "tag")])
            elif line.startswith("#"):
                document += line.startswith("# newdoc")
            elif line.strip():
                lines.append((number, line.split("\t")))
            elif lines:
                found.append((document, lines))
                lines = []
        found += [(document, lines)] if lines else []
        at = {
            name: number
            for number, full in enumerate(header)
            for name in (full.rpartition(":")[2], full)
        }
        tagged = [
            [cells[at[self.tag]] for _, cells in one if len(cells) == len(header)]
            for _, one in found
        ]
        scheme: Literal["bio", "bioes"] = "bioes" if detect(tagged) == "bioes" else "bio"
        for document, one in found:
            yield _row(one, at, (self.token, self.tag), len(header), scheme, document)


def _row(
    lines: list[tuple[int, list[str]]],
    at: dict[str, int],
    named: tuple[str, str],
    width: int,
    scheme: Literal["bio", "bioes"],
    document: int,
) -> Row:
    first, group = lines[0][0], f"document {document}" if document else ""
    whole = [cells for _, cells in lines if len(cells) == width]
    if len(whole) < len(lines):
        return Row(line=first, group=group, fault=FEW)
    number = at.get("ID")
    words = [cells for cells in whole if number is None or cells[number].isdigit()]
    tokens, tags = ([cells[at[name]] for cells in words] for name in named)
    if fault := next((why for tag in tags if (why := no_tag(tag, bare=False))), ""):
        return Row(line=first, group=group, fault=fault)
    misc = at.get("MISC")
    between = [
        "" if misc is not None and "SpaceAfter=No" in cells[misc].split("|") else " "
        for cells in words
    ]
    entities, repairs = decode(tags, scheme)
    return row_of(tokens, entities, between, line=first, group=group, repairs=repairs)
