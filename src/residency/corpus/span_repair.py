"""Spans as files give them become spans whose quote stands at their offsets, or are named as bad.

A repair is made only where exactly one is possible. The proof is always the quote that the file
gives:

- offsets of the whole row counted in UTF-16 units, in UTF-8 bytes or with CRLF as one character:
  converted where that confirms more of the row's quotes than code points do;
- the quote stands at the start or ends at the end that is given: the other bound is moved (``end``
  inclusive is one case);
- the quote and the text at the offsets differ only by case, by Unicode form or by blanks: the
  text's characters count;
- the quote stands exactly once in the text, in whatever Unicode form: moved there;
- blanks at the edges: trimmed, with or without a quote;
- two equal spans: merged.

Where two of these give different places the span is bad. So is a span without a quote that begins
or ends inside a word, or whose offsets may as well count emoji or CRLF in another way: how they
count is then for the data set to say (``offsets``, ``ends``). So is a discontinuous span: what
covers all its fragments also covers what was left out. The one exception must be asked for
(``join_lines``): fragments parted by nothing but blanks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Literal
from unicodedata import category, normalize

from msgspec.structs import replace

from residency.core.types import Span, Value

MOVED = "span moved to the only place where its quote stands"
BOUND = "span bound moved to where its quote stands"
CASE = "quote differs from the text by case only"
FORM = "quote differs from the text by Unicode form only"
BLANKS = "quote differs from the text by blanks only"
TRIMMED = "blanks at the edges of a span trimmed"
MERGED = "equal spans merged"
JOINED = "span fragments parted only by blanks joined"

EMPTY = "span is empty or holds only blanks"
OUTSIDE = "span lies outside the text"
DISCONTINUOUS = "span is discontinuous"
NOWHERE = "quote of a span stands nowhere in the text"
SEVERAL = "quote of a span stands in several places, not at its offsets"


INSIDE = "span without a quote begins or ends inside a word"
UNPROVED = "span without a quote in a text whose emoji or CRLF may be counted in two ways"
UTF16 = "offsets counted in UTF-16 units"
UTF8 = "offsets counted in UTF-8 bytes"
CRLF = "offsets counted CRLF as one character"
INCLUSIVE = "the last character is counted in"

Offsets = Literal["auto", "characters", "utf-16", "utf-8", "crlf"]
"""How the offsets of a data set count: as its quotes prove; code points; UTF-16 units; UTF-8 bytes;
code points with CRLF as one."""
COUNTED: dict[Offsets, str] = {"utf-16": UTF16, "utf-8": UTF8, "crlf": CRLF}


class Raw(Value, frozen=True):
    """A span as a file gives it: nothing about it is proved yet."""

    fragments: tuple[tuple[int, int], ...]
    label: str
    quote: str = ""
    code: str | None = None
    attributes: tuple[str, ...] = ()
    by: str | None = None
    score: float | None = None
    key: str = ""
    """What relations call it."""
    line: int = 0
    """Its own line in the file, where it has one."""
    fault: str = ""
    """Why the reader could not make a span of it."""


class Remark(Value, frozen=True):
    """A repair or a fault, with the line of the span where it has one."""

    reason: str
    line: int = 0


class Settled(Value, frozen=True):
    """The spans of one row in the order of the text, and what was done to get them."""

    spans: tuple[Span, ...]
    keys: dict[str, int]
    """Key of a raw span -> its position in ``spans``."""
    repairs: tuple[Remark, ...]
    faults: tuple[Remark, ...]


Place = tuple[int, int, str, str, tuple[str, ...]]
"""What makes two spans of a text the same one."""


def settle(
    text: str,
    raws: Sequence[Raw],
    join_lines: bool = False,
    offsets: Offsets = "auto",
    inclusive: bool = False,
    sure: bool = False,
) -> Settled:
    """Prove, repair or refuse every span of a row. ``offsets`` and ``inclusive`` say how spans
    without a quote are counted where the data set knows it; where its settings say so (``sure``)
    one that cuts a word is taken, and counted."""
    if inclusive:
        raws = [
            replace(raw, fragments=tuple((start, end + 1) for start, end in raw.fragments))
            for raw in raws
        ]
    table, counted = _convention(text, raws)
    tables = dict(_conventions(text)) if any(not raw.quote for raw in raws) else {}
    told = tables.get(COUNTED.get(offsets, ""))
    proved = offsets != "auto" or any(raw.quote and not raw.fault for raw in raws)
    spans: dict[Place, Span] = {}
    found: dict[str, Place] = {}
    repairs: list[Remark] = []
    faults: list[Remark] = []
    for raw in raws:
        reasons: list[str] = []
        own, how = (told, COUNTED[offsets]) if told and not raw.quote else (table, counted)
        place = raw.fault or _place(text, raw, own, how, join_lines, reasons)
        if not isinstance(place, str) and not raw.quote:
            doubt = _doubt(text, place, tables, proved)
            reasons += [doubt] if doubt and sure else []
            place = place if sure else doubt or place
        if isinstance(place, str):
            faults.append(Remark(reason=place, line=raw.line))
            continue
        start, end = _trim(text, *place)
        if start >= end:
            faults.append(Remark(reason=EMPTY, line=raw.line))
            continue
        if (start, end) != place:
            reasons.append(TRIMMED)
        span = _span(text, start, end, raw)
        identity = (start, end, raw.label, raw.code or "", raw.attributes)
        if spans.setdefault(identity, span) is not span:
            reasons.append(MERGED)
        if raw.key:
            found[raw.key] = identity
        repairs.extend(Remark(reason=reason, line=raw.line) for reason in reasons)
    order = {identity: position for position, identity in enumerate(sorted(spans))}
    return Settled(
        spans=tuple(spans[identity] for identity in order),
        keys={key: order[identity] for key, identity in found.items()},
        repairs=tuple(repairs),
        faults=tuple(faults),
    )


def _span(text: str, start: int, end: int, raw: Raw) -> Span:
    return Span(
        start=start,
        end=end,
        label=raw.label,
        quote=text[start:end],
        code=raw.code,
        attributes=raw.attributes,
        by=raw.by,
        score=raw.score,
    )


Table = dict[int, int]
"""Offset as counted in a file -> index of the code point."""


def inside_word(text: str, at: int) -> bool:
    """Whether a place lies between two letters, or two digits, of one word, or before a mark of its
    letter; in scripts without blanks between words it never does."""
    if not 0 < at < len(text):
        return False
    before, after = text[at - 1], text[at]
    if category(after)[0] == "M":
        return not before.isspace()
    if _UNPARTED.match(before) or _UNPARTED.match(after):
        return False
    letters = (before.isalpha() or category(before)[0] == "M") and after.isalpha()
    return letters or (before.isdigit() and after.isdigit())


_UNPARTED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)


def _clean(text: str, start: int, end: int) -> bool:
    """Whether a place could be a span: whole words, no blanks at the edges."""
    inside = 0 <= start < end <= len(text)
    part = text[start:end] if inside else ""
    return (
        bool(part)
        and part == part.strip()
        and not any(inside_word(text, at) for at in (start, end))
    )


def _doubt(text: str, place: tuple[int, int], tables: Mapping[str, Table], proved: bool) -> str:
    """Why a span without a quote is not certain; the empty string where it is. ``proved``: how the
    row counts is known."""
    start, end = place
    others = {name: (table.get(start), table.get(end)) for name, table in tables.items()}
    fits = [
        name
        for name, (first, last) in others.items()
        if first is not None
        and last is not None
        and (first, last) != place
        and _clean(text, first, last)
    ]
    if inside_word(text, start) or inside_word(text, end):
        fits += [INCLUSIVE] if _clean(text, start, end + 1) else []
        return INSIDE + (f" ({', or '.join(fits)}, would fit)" if fits and not proved else "")
    return UNPROVED if not proved and {UTF16, CRLF} & set(fits) else ""


def _table(text: str, width: Callable[[int], int]) -> Table:
    table: Table = {}
    offset = 0
    for index in range(len(text)):
        table.setdefault(offset, index)
        offset += width(index)
    table.setdefault(offset, len(text))
    return table


def _conventions(text: str) -> Iterator[tuple[str, Table]]:
    """The other ways to count this text that differ from counting code points."""
    if any(ord(character) > 0xFFFF for character in text):
        yield UTF16, _table(text, lambda i: 1 + (ord(text[i]) > 0xFFFF))
    if not text.isascii():
        yield (
            UTF8,
            _table(text, lambda i: len(text[i].encode("utf-8", "surrogatepass"))),
        )
    if "\r\n" in text:
        yield (
            CRLF,
            _table(text, lambda i: int(text[i : i + 2] != "\r\n")),
        )


def _convention(text: str, raws: Sequence[Raw]) -> tuple[Table | None, str]:
    """How the offsets of a row were counted: the way that confirms most of its quotes, code points
    where in doubt."""
    quoted = [raw for raw in raws if raw.quote and not raw.fault]
    best = _count_confirmed(text, quoted, None)
    chosen: tuple[Table | None, str] = (None, "")
    if best == len(quoted):
        return chosen
    for name, table in _conventions(text):
        confirmed = _count_confirmed(text, quoted, table)
        if confirmed > best:
            best, chosen = confirmed, (table, name)
    return chosen


def _count_confirmed(text: str, raws: Iterable[Raw], table: Table | None) -> int:
    return sum(_reads(text, raw, _convert(raw.fragments, table)) for raw in raws)


def _reads(text: str, raw: Raw, places: Sequence[tuple[int, int]] | None) -> bool:
    """Whether the fragments, joined by one blank as brat does, are the quote."""
    return places is not None and " ".join(text[start:end] for start, end in places) == raw.quote


def _convert(
    fragments: Sequence[tuple[int, int]], table: Table | None
) -> Sequence[tuple[int, int]] | None:
    """Offsets as code points, or None where one falls inside a character."""
    if table is None:
        return fragments
    places = [(table.get(start, -1), table.get(end, -1)) for start, end in fragments]
    return None if any(-1 in place for place in places) else places


def _place(
    text: str, raw: Raw, table: Table | None, counted: str, join_lines: bool, reasons: list[str]
) -> tuple[int, int] | str:
    """Where a span stands, or why that is not certain; repairs made are appended to ``reasons``."""
    places = _convert(raw.fragments, table)
    if table is not None and not _reads(text, raw, places) and _reads(text, raw, raw.fragments):
        places = raw.fragments
    if places is not None and tuple(places) != raw.fragments:
        reasons.append(counted)
    if len(raw.fragments) > 1:
        return _join(text, raw, places, reasons) if join_lines else DISCONTINUOUS
    start, end = places[0] if places else raw.fragments[0]
    inside = 0 <= start < end <= len(text)
    if not raw.quote:
        return (start, end) if inside else (EMPTY if 0 <= start == end <= len(text) else OUTSIDE)
    if inside and text[start:end] == raw.quote:
        return start, end
    candidates = dict(_candidates(text, start, end, raw.quote))
    if len(candidates) == 1:
        (place, reason), *_ = candidates.items()
        reasons[:] = [reason]  # one repair is reported: how the place was found in the end
        return place
    return SEVERAL if candidates else (NOWHERE if inside else OUTSIDE)


def _join(
    text: str, raw: Raw, places: Sequence[tuple[int, int]] | None, reasons: list[str]
) -> tuple[int, int] | str:
    if places is None or not all(0 <= start < end <= len(text) for start, end in places):
        return OUTSIDE
    gaps = [(before[1], after[0]) for before, after in pairwise(places)]
    if any(end < start or text[start:end].strip() for start, end in gaps):
        return DISCONTINUOUS
    if raw.quote and not _reads(text, raw, places):
        return NOWHERE
    reasons.append(JOINED)
    return places[0][0], places[-1][1]


def _candidates(
    text: str, start: int, end: int, quote: str
) -> Iterator[tuple[tuple[int, int], str]]:
    """Every place where the quote may stand, each with the repair that puts the span there."""
    for form in dict.fromkeys((quote, normalize("NFC", quote), normalize("NFD", quote))):
        # The look-ahead finds overlapping places too.
        found = (match.start() for match in re.finditer(f"(?={re.escape(form)})", text))
        places = [(at, at + len(form)) for at in found]
        at_bound = [place for place in places if place[0] == start or place[1] == end]
        yield from ((place, BOUND if at_bound else MOVED) for place in at_bound or places)
    if 0 <= start < end <= len(text):
        here = text[start:end]
        if normalize("NFC", here) == normalize("NFC", quote):
            yield (start, end), FORM
        elif here.casefold() == quote.casefold():
            yield (start, end), CASE
        elif here.split() == quote.split():
            yield (start, end), BLANKS


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """The span without the blanks at its edges; empty where it holds nothing else."""
    part = text[start:end]
    start += len(part) - len(part.lstrip())
    return start, start + len(part.strip())
