"""Column files: one token a line, a blank line between sentences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from msgspec.structs import replace

from residency.core.errors import DataError
from residency.core.files import text_lines
from residency.core.types import Value
from residency.corpus.reader import Row, Source, require
from residency.corpus.span_repair import Raw

Scheme = Literal["bio", "iob1", "io", "bioes"]
ORPHAN = "entity without a start tag"
UNCLOSED = "entity without an end tag"
DOCUMENT = "-DOCSTART-"

NO_TYPE = "a tag has no type"
TWO_TAGS = "a line holds two tags in one"
SMALL_PREFIX = "the prefix of a tag is a small letter"
NO_TAG = "the column of the tags holds something else"
FEW = "a line has too few columns"
MANY = "a line has more columns than the others"

_PREFIX = re.compile(r"([BIMELSU])[-_](.+)", re.DOTALL)
_TYPE = re.compile(r"[^\W_][\w.:/+&-]{0,63}")
_TWO = re.compile(r"[BIMELSU][-_].*[|,;+&/][BIMELSU][-_].*")
# BMES and BILOU are BIOES by other letters.
_LETTERS = {"M": "I", "L": "E", "U": "S"}


class Conll(Source):
    """Tokens and tags in columns parted by tabs, or else by blanks. Sentences become notes, tokens
    joined by ``joiner``.

    Schemes: ``bio`` (every entity starts with B-), ``iob1`` (B- only where an entity follows one of
    the same type), ``io`` (no start tags: an entity is a maximal run of one type), ``bioes`` (also
    written BMES and BILOU). An I- that nothing starts begins an entity, which is the only reading
    it has; the row counts as repaired. ``-DOCSTART-`` lines part documents, which are then the
    groups. A file in which most lines hold no tag is refused; what is no tag elsewhere rejects its
    sentence. Types without a prefix are tags only in a file where ``O`` is the commonest.
    """

    format: Literal["conll"]
    token: int = 0
    """Column of the tokens, from 0; negative ones count from the last."""
    tag: int = -1
    """Column of the tags."""
    scheme: Literal["auto", "bio", "iob1", "io", "bioes"] = "auto"
    """How tags say where an entity begins; ``auto``: as the tags of the file show."""
    joiner: str = " "
    """What stands between two tokens; the empty string for Chinese."""

    def suffixes(self) -> tuple[str, ...]:
        return (".txt", ".tsv", ".conll", ".bio", ".iob", ".iob2", ".bmes", ".bioes")

    def rows(self, path: Path) -> Iterator[Row]:
        columns = Counter(
            len(cells) for _, line in text_lines(path) if line.strip() for cells in [_cells(line)]
        )
        usual = columns.most_common(1)[0][0] if columns else 0
        bare = self._bare_types(path, usual)
        scheme = (
            detect(one.tags for one in self._sentences(path, usual, bare))
            if self.scheme == "auto"
            else self.scheme
        )
        for sentence in self._sentences(path, usual, bare):
            yield self._row(sentence, scheme)

    def _bare_types(self, path: Path, usual: int) -> bool:
        """Whether the types of a file have no prefix. Raises ``DataError`` that names a line where
        most lines hold no tag; never with a word of it."""
        met: Counter[str] = Counter()
        first: dict[str, int] = {}
        for sentence in self._sentences(path, usual, bare=False):
            for line, tag in zip(sentence.lines, sentence.tags, strict=True):
                kind = "O" if tag == "O" else no_tag(tag, bare=False)
                kind = "bare" if kind == NO_TAG and not no_tag(tag, bare=True) else kind
                met[kind] += 1
                first.setdefault(kind, line)
        tags, lines = met["O"] + met[""], met.total()
        if (
            not met[""]
            and met["bare"]
            and met["O"] * 2 >= lines
            and met["O"] + met["bare"] == lines
        ):
            return True
        if lines and tags * 2 < lines:
            line = min(number for kind, number in first.items() if kind not in ("O", ""))
            column = "last column" if self.tag == -1 else f"column {self.tag}"
            raise DataError(
                f"{path}: line {line}: the {column} is no tag ({tags} of {lines} lines hold one); "
                "a tag is O, or B-, I-, E- or S- and a type. Set tag to the column of the tags, or "
                "format to what the file is."
            )
        return False

    def _row(self, sentence: Sentence, scheme: Scheme) -> Row:
        group = f"document {sentence.document}" if sentence.document else ""
        if sentence.fault:
            return Row(line=sentence.line, group=group, fault=sentence.fault)
        entities, repairs = decode(sentence.tags, scheme)
        between = [self.joiner] * len(sentence.tokens)
        return row_of(
            sentence.tokens, entities, between, line=sentence.line, group=group, repairs=repairs
        )

    def _sentences(self, path: Path, usual: int, bare: bool) -> Iterator[Sentence]:
        sentence, document, seen = Sentence(), 0, False
        for number, line in text_lines(path):
            if not line.strip():
                if sentence.line:
                    yield sentence
                sentence = Sentence(document=document)
                continue
            if line.startswith(DOCUMENT):
                document += 1
                sentence = replace(sentence, document=document)
                continue
            sentence = sentence if sentence.line else replace(sentence, line=number)
            cells = _cells(line)
            token, tag = _at(cells, self.token), _at(cells, self.tag)
            # Counted from the last, a column is another one in a line of another length.
            other = len(cells) != usual and min(self.token, self.tag) < 0
            if len(cells) < 2 or token is None or tag is None or other:
                if not seen and not other and len(cells) >= usual:
                    setting = "token" if token is None else "tag"
                    present = [str(index) for index in range(len(cells))]
                    wanted = [(str(getattr(self, setting)), setting)]
                    require(f"{path}:{number}", "column", present, wanted)
                fault = sentence.fault or (MANY if len(cells) > max(usual, 1) else FEW)
                sentence = replace(sentence, fault=fault)
            if tag is None:
                continue
            seen = True
            sentence.lines.append(number)
            sentence.tags.append(tag)
            # A blank as a token vanishes when columns are parted by blanks: common in Chinese
            # files.
            sentence.tokens.append(token or (" " if not self.joiner else ""))
            if fault := ("" if sentence.tokens[-1] else "a token is empty") or no_tag(tag, bare):
                sentence = replace(sentence, fault=sentence.fault or fault)
        if sentence.line:
            yield sentence


def row_of(
    tokens: Sequence[str],
    entities: Sequence[tuple[int, int, str]],
    between: Sequence[str],
    *,
    line: int,
    id: str = "",
    group: str = "",
    repairs: Sequence[str] = (),
) -> Row:
    """Tokens as the text of a row, with what stands behind each of them save the last, and entities
    (first token, last token, type) as its spans."""
    text, places = "", list[tuple[int, int]]()
    for number, token in enumerate(tokens):
        text += between[number - 1] if number else ""
        places.append((len(text), len(text) + len(token)))
        text += token
    ends = [(places[first][0], places[last][1], label) for first, last, label in entities]
    return Row(
        line=line,
        id=id,
        text=text,
        spans=tuple(
            Raw(fragments=((start, end),), label=label, quote=text[start:end])
            for start, end, label in ends
        ),
        group=group,
        repairs=tuple(repairs),
    )


class Sentence(Value, frozen=True):
    """The lines between two blank lines."""

    line: int = 0
    """Where it begins, from 1; 0 where no line was read."""
    tokens: list[str] = []
    tags: list[str] = []
    lines: list[int] = []
    """The line of each tag."""
    document: int = 0
    fault: str = ""

    def __repr__(self) -> str:
        # tokens are text
        return f"Sentence(line={self.line}, document={self.document}, fault={self.fault!r})"


def _cells(line: str) -> list[str]:
    line = line.rstrip("\r\n\t ")
    return line.split("\t") if "\t" in line else re.split(" +", line)


def _at(cells: Sequence[str], index: int) -> str | None:
    return cells[index] if -len(cells) <= index < len(cells) else None


def no_tag(tag: str, bare: bool) -> str:
    """Why a tag is none; the empty string where it is one. ``bare``: types without a prefix are
    tags."""
    match = _PREFIX.fullmatch(tag)
    if tag == "O" or (match and _TYPE.fullmatch(match[2]) and not _TWO.fullmatch(tag)):
        return ""
    if match:
        return TWO_TAGS if _TWO.fullmatch(tag) else NO_TAG
    if tag in set("BIMELSU"):
        return NO_TYPE
    if re.fullmatch(r"[bimelsu][-_]\w.*", tag):
        return SMALL_PREFIX
    return "" if bare and _TYPE.fullmatch(tag) else NO_TAG


def parse_tag(tag: str) -> tuple[str, str]:
    """(letter, type) of a tag: ``B``, ``I``, ``E`` or ``S`` and its type, ``O`` and nothing, or
    ``I`` and a bare type."""
    if tag in ("O", ""):
        return "O", ""
    match = _PREFIX.fullmatch(tag)
    return (_LETTERS.get(match[1], match[1]), match[2]) if match else ("I", tag)


def detect(sentences: Iterable[Sequence[str]]) -> Scheme:
    """The scheme of a file from all its tags: any E or S makes it BIOES, no B makes it IO.

    It is IOB1 only where every B follows an entity of its own type, as that scheme demands, and it
    is BIO otherwise.
    """
    letters: set[str] = set()
    strict_starts = False
    for tags in sentences:
        before = ""
        for tag in tags:
            letter, kind = parse_tag(tag)
            letters.add(letter)
            strict_starts |= letter == "B" and kind != before
            before = kind
    if letters & {"E", "S"}:
        return "bioes"
    if "B" not in letters:
        return "io"
    return "bio" if strict_starts or "I" not in letters else "iob1"


def decode(tags: Sequence[str], scheme: Scheme) -> tuple[list[tuple[int, int, str]], list[str]]:
    """(first token, last token, type) of each entity, and the repairs that were needed."""
    entities: list[tuple[int, int, str]] = []
    repairs: list[str] = []
    start, kind = -1, ""  # the open entity
    for index, tag in enumerate([*tags, "O"]):
        letter, found = parse_tag(tag)
        continues = start >= 0 and letter in ("I", "E") and found == kind
        if start >= 0 and not continues:
            entities.append((start, index - 1, kind))
            if scheme == "bioes":
                repairs.append(UNCLOSED)
            start = -1
        if letter != "O" and not continues:
            start, kind = index, found
            if letter in ("I", "E") and scheme in ("bio", "bioes"):
                repairs.append(ORPHAN)
        if start >= 0 and letter in ("E", "S"):
            entities.append((start, index, kind))
            start = -1
    return entities, repairs
