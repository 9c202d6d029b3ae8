"""Pieces of invented identified notes as a tagger learns from them: typed in many ways, cut as
notes are cut, each identifier's place known."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import count as counting
from pathlib import Path
from unicodedata import is_normalized, normalize

from residency.core.edits import Edits
from residency.core.types import Value
from residency.synth.clinical_notes import seed_of
from residency.synth.hospital_notes import WORLD, notes
from residency.synth.marked import MarkedNote, read_marked
from residency.synth.planting import STYLES
from residency.synth.redrawn import Names, Redrawer

FOLDER = Path(__file__).parent / "data/tagger"
"""A world of many names and places, and of clinical words that look like them."""
LONGEST = {"zh": 240}
"""Characters of a piece; about as many tokens as 600 of Vietnamese or English."""
JOINTS = ("\t", " | ", "; ", ", ", " ", " - ", ". ", "  ")
COLONS = (":", "\t", " - ", " ", " : ", "：", " | ")
PLAIN = 0.3
"""Share of the pieces without an identifier that are kept."""
CLEAR = 0.8
"""The same, of what people wrote: clinical words that look like identifiers."""
SCANNED = 0.08
"""Share of the pieces that a scanner read."""
WHOLE = 0.5
"""Share of the short written notes that are not cut."""


class Piece(Value, frozen=True):
    """A text, and its identifiers as (start, end, kind)."""

    text: str
    marks: tuple[tuple[int, int, str], ...]


def pieces(
    lang: str, count: int, seed: int = 0, folders: Sequence[Path] = (FOLDER, FOLDER, WORLD)
) -> Iterator[Piece]:
    """``count`` pieces of notes of the worlds in ``folders``, one after the other; the same for the
    same arguments."""
    made, rng = 0, random.Random(seed_of("pieces", lang, seed))
    for number in counting():
        folder = folders[number % len(folders)]
        for planted in notes(lang, 1, seed_of(seed, number) % 2**31, folder):
            marks = tuple((mark.start, mark.end, mark.kind) for mark in planted.marks)
            whole = typed(composed(Piece(planted.note.text, marks)), lang, rng)
            for piece in cut(whole, LONGEST.get(lang, 600), rng):
                if piece.marks or rng.random() < PLAIN:
                    if made == count:
                        return
                    made += 1
                    yield piece


def authors(lang: str, folder: Path = FOLDER / "notes") -> list[MarkedNote]:
    """The notes that were written for training (``notes/README.md``)."""
    return list(read_marked((folder / f"{lang}.txt").read_text("utf-8")))


def redrawn(
    lang: str, count: int, seed: int, names: Names, written: Sequence[MarkedNote]
) -> Iterator[Piece]:
    """``count`` pieces of written notes, every note again and again with other identifiers."""
    made, rng = 0, random.Random(seed_of("redrawn", lang, seed))
    teller = Redrawer(lang, written, names)
    while True:
        for note in rng.sample(written, len(written)):
            told = teller.again(note, rng)
            marks = tuple(mark for mark in told.marks if mark[2])
            whole, most = (
                typed(composed(Piece(told.text, marks)), lang, rng),
                LONGEST.get(lang, 600),
            )
            short = len(whole.text) < 1.6 * most and rng.random() < WHOLE
            for piece in [whole] if short else cut(whole, most, rng):
                if made == count:
                    return
                if piece.marks or rng.random() < CLEAR:
                    made += 1
                    yield piece


def composed(piece: Piece) -> Piece:
    """In NFC."""
    if is_normalized("NFC", piece.text):
        return piece
    at = [len(normalize("NFC", piece.text[:place])) for one in piece.marks for place in one[:2]]
    ends = zip(at[::2], at[1::2], piece.marks, strict=True)
    return Piece(normalize("NFC", piece.text), tuple((a, b, one[2]) for a, b, one in ends))


def typed(piece: Piece, lang: str, rng: random.Random) -> Piece:
    """As one of many hands types it: case, marks, separators, lines that were broken by a
    scanner."""
    styles = {"upper": 0.08, "lower": 0.08, "bare": 0.09 if lang == "vi" else 0.0}
    chosen = rng.random()
    for style, share in styles.items():
        chosen -= share
        if chosen < 0:
            changed = STYLES[style](piece.text)
            if len(changed) == len(piece.text):
                piece = Piece(changed, piece.marks)
            break
    if lang == "zh" and rng.random() < 0.3:
        signs = str.maketrans(*rng.choice((("，。：；（）", ",.:;()"), (",:;()", "，：；（）"))))
        piece = Piece(piece.text.translate(signs), piece.marks)
    if rng.random() < SCANNED:
        piece = Piece(_misread(piece.text, rng), piece.marks)
        made = Edits.of(piece.text, torn(piece.text, lang, rng))
    else:
        made = Edits.of(piece.text, separated(piece, lang, rng))
    moved = ((made.project(start, end), kind) for start, end, kind in piece.marks)
    return Piece(made.apply(piece.text), tuple((*at, kind) for at, kind in moved if at))


def torn(text: str, lang: str, rng: random.Random) -> list[tuple[int, int, str]]:
    """Edits that put blanks into words, as a scanner reads them."""
    share = rng.choice((0.05, 0.3, 0.8) if lang == "zh" else (0.03, 0.1, 0.25))
    within = [at.start() for at in re.finditer(r"(?<=\w)(?=\w)", text) if rng.random() < share]
    wider = [at.end() for at in re.finditer(r"\w (?=\w)", text) if rng.random() < share]
    return sorted((at, at, " ") for at in (*within, *wider))


def _misread(text: str, rng: random.Random) -> str:
    """Digits read as letters, of the same length."""
    share = rng.choice((0.0, 0.3, 0.7))
    signs = {"0": "O", "1": "l"}
    return "".join(signs.get(one, one) if rng.random() < share else one for one in text)


def separated(piece: Piece, lang: str, rng: random.Random) -> list[tuple[int, int, str]]:
    """Edits of what stands between words: ends of lines, colons, blanks, of which only the last may
    lie in an identifier."""
    text, inside = piece.text, {i for a, b, _ in piece.marks for i in range(a, b)}
    taken: set[int] = set()
    edits: list[tuple[int, int, str]] = []

    def replace(pattern: str, new: Sequence[str], share: float, within: bool = False) -> None:
        for match in re.finditer(pattern, text):
            start, end = match.span()
            range_ = set(range(start, end + 1))
            if rng.random() < share and not range_ & taken and (within or start not in inside):
                taken.update(range_)
                edits.append((start, end, rng.choice(new)))

    if rng.random() < 0.35:
        joints = JOINTS if lang != "zh" else (*JOINTS, "，", "。", "；", "　", "")
        replace("\n", [rng.choice(joints)], 0.5)
    if rng.random() < 0.3:
        replace("[:：] ?", [rng.choice(COLONS)], 0.8)
    if rng.random() < 0.12:
        replace(" +", ("\n", "  ", "", "\n"), 0.1, within=True)
    if lang == "zh" and rng.random() < 0.1:
        replace(r"(?<=\w)(?=\w)", (" ", "\n"), 0.06, within=True)
    return edits


def cut(piece: Piece, most: int, rng: random.Random) -> Iterator[Piece]:
    """Pieces of whole lines, of one to ``most`` characters and now and then a line more, through no
    identifier."""
    ends = [match.end() for match in re.finditer("\n|[.;] |[。；]", piece.text)]
    ends = [end for end in ends if not any(a < end < b for a, b, _ in piece.marks)]
    start, size = 0, _size(most, rng)
    for end in (*ends, len(piece.text)):
        if end - start >= size or (end == len(piece.text) and end > start):
            inside = [
                (a - start, b - start, kind) for a, b, kind in piece.marks if start <= a < end
            ]
            if piece.text[start:end].strip():
                yield Piece(piece.text[start:end], tuple(inside))
            start, size = end, _size(most, rng)


def _size(most: int, rng: random.Random) -> int:
    return int(most * rng.choice((0.15, 0.4, 0.7, 1.0, 1.0)))


def lines(folder: Path, languages: Sequence[str]) -> Mapping[str, list[str]]:
    """Language -> texts without identifiers, a line each, of the files ``vi*.txt`` and so on."""
    return {
        lang: [
            line
            for path in sorted(folder.glob(f"{lang}*.txt"))
            for line in path.read_text("utf-8").splitlines()
            if line.strip()
        ]
        for lang in languages
    }
