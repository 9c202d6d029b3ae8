"""Marks identifiers by an encoder that was trained for it: names, places, organisations and dates
in words, which no rule can list. Rules and the row's own identifiers stand beside it.

A tagger is a folder: ``tagger.json`` (what it is, and the hashes of the other files), an ONNX graph
in 8 bits, and a tokenizer. It is read on the CPU with ONNX Runtime, and nothing is downloaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from residency.core.errors import UserError
from residency.core.files import file_digest, read_json
from residency.core.types import Value
from residency.deid.find import Finding, resolve
from residency.deid.names.zh import before_act
from residency.deid.options import Deid
from residency.deid.terms import is_term

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from residency.models.tokens import TokenisedText

PEOPLE = ("name", "relative", "clinician")
LABELS = (*PEOPLE, "organisation", "address", "date", "phone", "record", "url")
"""What it marks, as kinds of findings."""
SINGLE = frozenset({"phone", "record", "url"})
"""What is nothing in parts."""
NUMBERS = frozenset({"admission", "national_id", "insurance", "account", "plate", "other"})
KIND_OF = {label: label for label in LABELS} | {"birth_date": "date", "email": "url"}
KIND_OF |= dict.fromkeys(NUMBERS, "record")
"""Kind of identifier -> what it is marked as. Ages are left to the rules."""
FILE, GRAPH, TOKENIZER = "tagger.json", "model.int8.onnx", "tokenizer.json"
SCHEMA = 1
PACKAGED = Path(__file__).parent / "data/tagger"
GROW = 0.05
"""A slot of this probability belongs to a place that a likelier slot beside it has begun."""
WORDS = frozenset({*PEOPLE, "organisation", "address"})
TIME = re.compile(r"(?:[01]?\d|2[0-4])(?::[0-5]\d(?::\d\d)?|[hg](?:[0-5]\d)?)(?: ?[ap]m)?", re.I)
"""A time of day, which identifies nobody."""
NOBODY = re.compile(
    r"(?:ward|bed|room|rm|bay|giường|phòng|buồng)\s?\d{1,3}[a-z]?|\d{1,3}(?:st|nd|rd|th)"
    r"|(?:0\d|1[0-8]|2[1-3])[0-5]\d|(?:english|spanish|french|german|italian|portuguese|polish|russian|arabic|urdu|hindi"
    r"|punjabi|bengali|tamil|gujarati|mandarin|cantonese|vietnamese|korean|japanese|tagalog|somali|farsi|turkish)",
    re.I,
)
"""A bed or ward by its number, an ordinal, a time without a sign, a language."""
WEEKDAY = re.compile(
    r"(?:the|on|ngày|hôm)|(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?\.?|"
    r"(?:sáng |chiều |tối )?(?:thứ|thu) \w+|(?:chủ|chu) (?:nhật|nhat)|(?:星期|周|週"
    r"|礼拜)[一二三四五六日天]?",
    re.I,
)
CELLS = re.compile(r"[^\t|\n]+")
"""Nothing that is found crosses the border of a cell or a line."""


class Measured(Value, frozen=True):
    """What rules and tagger found on a set of notes that it was not trained on."""

    lang: str
    notes: int
    recall: float
    precision: float
    rules: float
    """Recall of the rules alone."""


class TaggerCard(Value, frozen=True):
    """What a tagger says of itself."""

    schema: int
    labels: tuple[str, ...]
    window: int
    """Tokens that it reads at once, special ones included."""
    mask: float
    """A place of this probability or a higher one is masked."""
    review: float
    """From here on up to ``mask`` a person looks at it."""
    files: dict[str, str]
    """Name -> SHA-256."""
    layers: int
    pieces: int
    """Of the vocabulary."""
    steps: int
    seed: int
    measured: tuple[Measured, ...] = ()
    digest: str = ""
    """SHA-256 of all of this but the digest; cards of earlier versions have none."""


class Tagged(Value, frozen=True):
    """``text[start:end]`` identifies somebody, as likely as ``probability`` says."""

    start: int
    end: int
    kind: str
    probability: float


class IdentifierTagger:
    """A tagger that was read; ``threads``: of a forward pass."""

    def __init__(self, folder: Path = PACKAGED, threads: int = 1) -> None:
        self.folder, self.threads, self.card = folder, threads, read_card(folder)

    @cached_property
    def _reader(self) -> _Reader:
        return _Reader(self.folder, self.card, self.threads)

    def tag(self, text: str, least: float) -> list[Tagged]:
        """The places of an NFC text with at least this probability, in order."""
        tokens, scores = self._reader(text)
        return list(self._places(text, tokens.slots, scores, least))

    def _places(
        self,
        text: str,
        slots: Sequence[tuple[int, int]],
        scores: NDArray[np.float32],
        least: float,
    ) -> Iterator[Tagged]:
        """Runs of slots down to GROW, cut at cells; each part is as likely as its likeliest
        slot."""
        import numpy as np

        if not slots:
            return
        shares = np.exp(scores)
        sure = 1 - shares[:, 0]
        begins, kinds = shares[:, 1::2], shares[:, 1::2] + shares[:, 2::2]
        new = begins.sum(1) > sure / 2
        words = np.array([label in WORDS for label in self.card.labels])
        worded = kinds[:, words].sum(1) > sure / 2
        runs: list[list[int]] = []
        for slot in np.flatnonzero(sure >= min(least, GROW)):
            last = runs[-1][-1] if runs else -2
            if last == slot - 1 and not new[slot] and worded[last] == worded[slot]:
                runs[-1].append(int(slot))
            else:
                runs.append([int(slot)])
        for run in runs:
            kind = self.card.labels[int(kinds[run].sum(0).argmax())]
            for a, b in cells(text, slots[run[0]][0], slots[run[-1]][1]):
                b = before_act(text, a, b) if kind in PEOPLE else b
                own = [slot for slot in run if slots[slot][0] < b and a < slots[slot][1]]
                likely = float(sure[own].max())
                wordless = kind in WORDS and not any(sign.isalpha() for sign in text[a:b])
                if (
                    likely >= least
                    and not wordless
                    and not any(none.fullmatch(text, a, b) for none in (TIME, NOBODY))
                ):
                    yield Tagged(a, b, kind, likely)


def cells(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a stretch within one line and cell, without the signs at their ends."""
    for match in CELLS.finditer(text, start, end):
        first, last = match.span()
        while first < last and not (text[first].isalnum() or text[first] in "+(@"):
            first += 1
        while first < last and not (text[last - 1].isalnum() or text[last - 1] in ".)"):
            last -= 1
        if any(sign.isalnum() for sign in text[first:last]):
            yield first, last


class ReviewedTagger:
    """A tagger with its two thresholds; ``decided``: what a person said of a place (note, start,
    end, quote): that it identifies somebody, that it does not, or nothing yet."""

    def __init__(
        self,
        tagger: IdentifierTagger,
        settings: Deid,
        decided: Callable[[str, int, int, str], bool | None] = lambda *_: None,
    ) -> None:
        card = tagger.card
        self.mask = card.mask if settings.mask is None else settings.mask
        review = min(card.review, self.mask) if settings.review is None else settings.review
        if review > self.mask:
            raise UserError(
                f"deid.review: {review} is above deid.mask, which is {self.mask}; places from "
                "review up to mask wait for a person, so give a lower one."
            )
        self.tagger, self.review, self.decided = tagger, review, decided

    def add(
        self, id: str, text: str, findings: Sequence[Finding]
    ) -> tuple[list[Finding], tuple[Tagged, ...]]:
        """Findings (in order, without overlaps) with what is tagged beside them, and the places on
        which somebody has to decide."""
        sure, open_ = [], []
        tagged = [
            one
            for one in self.tagger.tag(text, self.review)
            if not is_term(text, one.start, one.end, one.kind)
        ]
        clear = {text[one.start : one.end] for one in tagged if one.probability >= self.mask}
        for place in tagged:
            quote = text[place.start : place.end]
            said = self.decided(id, place.start, place.end, quote)
            if said or (said is None and quote in clear):  # the same words elsewhere
                sure.append(place)
            elif said is None:
                open_.append(place)
        found = resolve([*findings, *beside(findings, sure, text)])
        return found, tuple(place for place in open_ if any(beside(found, [place], text)))


def tagger_of(
    settings: Deid,
    threads: int = 1,
    decided: Callable[[str, int, int, str], bool | None] = lambda *_: None,
) -> ReviewedTagger | None:
    """The tagger that the settings ask for; None where it is off.

    Raises ``UserError`` where its weights or what it needs are not on this machine.
    """
    if settings.tagger == "off":
        return None
    return ReviewedTagger(IdentifierTagger(folder_of(settings), threads), settings, decided)


def folder_of(settings: Deid) -> Path:
    """Where the weights lie."""
    return PACKAGED if settings.tagger == "on" else Path(settings.tagger)


class _Reader:
    """Tokens, windows and the forward pass."""

    def __init__(self, folder: Path, card: TaggerCard, threads: int) -> None:
        from tokenizers import Tokenizer

        from residency.models.onnx_encoder import session

        self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self.graph = session(folder / GRAPH, threads)
        self.first, self.last = self.tokenizer.encode("").ids
        self.pad = self.tokenizer.token_to_id("<pad>") or 0
        self.window = card.window

    def __call__(self, text: str) -> tuple[TokenisedText, NDArray[np.float32]]:
        """A text's tokens, and the logarithms of the probabilities of each slot's tags.

        Windows are read one by one: in 8 bits a row's numbers depend on the rows beside it, and a
        note must have the same result whatever is read with it.
        """
        import numpy as np

        from residency.models.onnx_encoder import forward
        from residency.models.tokens import slotted, windows

        encoded = self.tokenizer.encode(text, add_special_tokens=False)
        tokens, parts = slotted(text, encoded.ids, encoded.offsets), []
        for window in windows(len(tokens.ids), tokens.firsts, self.window - 2):
            row = [self.first, *tokens.ids[window.start : window.end], self.last]
            (scores,) = forward(self.graph, [row], self.pad, self.window)
            parts.append(scores[[tokens.firsts[slot] - window.start + 1 for slot in window.slots]])
        return tokens, np.concatenate(parts)


def is_installed(folder: Path = PACKAGED) -> bool:
    """Whether a tagger, or a part of one, is on this machine, and what reads it."""
    here = any((folder / name).exists() for name in (FILE, GRAPH, TOKENIZER))
    return here and not _missing()


def _missing() -> list[str]:
    return [name for name in ("onnxruntime", "tokenizers") if find_spec(name) is None]


def sealed(card: TaggerCard) -> TaggerCard:
    """A card with its digest."""
    bare = msgspec.structs.replace(card, digest="")
    return msgspec.structs.replace(card, digest=sha256(msgspec.json.encode(bare)).hexdigest())


def read_card(folder: Path) -> TaggerCard:
    """What a tagger says of itself, every file checked against its hash.

    Raises ``UserError`` where the folder, a file or a library is missing, or a file was changed.
    """
    if missing := _missing():
        raise UserError(
            f"deid.tagger: {' and '.join(missing)} not installed; install with pip install "
            "'residency[deid]', or set deid.tagger: off."
        )
    if not (folder / FILE).is_file():
        raise UserError(
            f"deid.tagger: there are no weights in {folder}; make them with residency "
            "tagger --out FOLDER, or set deid.tagger: off."
        )
    card = read_json(folder / FILE, TaggerCard)
    changed = [FILE] if card.digest and card != sealed(card) else []
    for name, expected in card.files.items():
        if not (folder / name).is_file() or file_digest(folder / name) != expected:
            changed.append(name)
    if changed:
        raise UserError(
            f"deid.tagger: {folder / changed[0]} is missing or was changed; install residency "
            "again."
        )
    return card


def beside(rules: Sequence[Finding], tagged: Iterable[Tagged], text: str) -> Iterator[Finding]:
    """What a tagger adds to what rules and columns found (in order, without overlaps).

    They win: a place that touches people they found becomes one with them where it is of people
    too, and a number one with the numbers in it; of any other, what they leave of it is taken, and
    of a number that they touch nothing. The weekday that they leave of a date is none.
    """
    for place in tagged:
        touching = [one for one in rules if one.start < place.end and place.start < one.end]
        if any(one.start <= place.start and place.end <= one.end for one in touching):
            continue
        by = f"tagger:{place.probability:.2f}"
        if all(_one_with(place, one) for one in touching):
            yield Finding(place.start, place.end, place.kind, by, -1)
        elif place.kind not in SINGLE:
            at = place.start
            for one in (*touching, Finding(place.end, place.end, "", "")):
                for start, end in cells(text, at, max(at, one.start)):
                    if place.kind != "date" or not WEEKDAY.fullmatch(text, start, end):
                        yield Finding(start, end, place.kind, by, -1)
                at = max(at, one.end)


def _one_with(place: Tagged, found: Finding) -> bool:
    """Whether what was tagged and what it touches are one identifier."""
    if place.kind in PEOPLE:
        return found.kind in PEOPLE
    within = place.start <= found.start and found.end <= place.end
    return within and place.kind in SINGLE and found.kind not in ("date", "birth_date", *PEOPLE)


RULES_ALONE = "vi 0.52, zh 0.32, en 0.46"
"""Recall of the rules alone on 195 notes that were written without sight of them, all letters of an
identifier found (``tests/deid/written/final``)."""


def finder(settings: Deid) -> str:
    """What finds identifiers under these settings, and its measured recall, as a sentence."""
    if settings.tagger == "off":
        return (
            "Found by columns and rules alone, without the tagger; measured recall of rules alone "
            f"on notes that they were not written on: {RULES_ALONE}."
        )
    card = read_card(folder_of(settings))
    found = ", ".join(f"{one.lang} {one.recall:.2f} ({one.rules:.2f})" for one in card.measured)
    return (
        "Found by columns, rules and tagger; measured recall without columns on notes that it was "
        "neither trained nor chosen on, in brackets that of the rules alone: "
        f"{found or 'not measured'}."
    )
