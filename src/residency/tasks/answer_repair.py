"""What a model wrote instead of the form that it was asked for, read as far as its words honestly
go.

Each thing that had to be mended is named by a fixed phrase, so that it can be counted; none of them
holds a word of the note. Nothing is added that the words do not say: an item that cannot be read,
whose label is unknown or whose quote is not in the text, is left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from unicodedata import combining, normalize

AROUND = "words around the answer"
JSON = "not valid JSON"
CUT = "cut off, what was whole is kept"
SINGLE = "one object instead of a list"
BY_LABEL = "listed by label"
LINES = "lines instead of JSON"
NONE = "no answer said in words"
LABEL = "label written otherwise"
UNKNOWN = "unknown label, left out"
UNREAD = "item without label and quote, left out"
ABSENT = "quote that the text does not hold, left out"
FOLDED = "quote written otherwise"
NEXT = "occurrence not said, the next taken"
TWICE = "said twice"
UNREADABLE = "line that cannot be read, left out"

LONGEST = 100_000
"""Characters of an answer that are looked at."""
DEEPEST = 50
"""Brackets within brackets; no answer has them, and a reader may run out of stack."""
MOST_TRIES = 20
"""Opening brackets that are tried: a model that writes thousands has not answered."""

NOTHING = frozenset(
    [
        "none",
        "nothing",
        "no entities",
        "n/a",
        "không",
        "không có",
        "không có thực thể",
        "không có nhãn",
        "无",
        "没有",
        "无实体",
        "[]",
    ]
)
"""Folded words that say that there is nothing."""
PUNCTUATION = str.maketrans("“”„‟＂「」『』：，［］｛｝【】", '""""""""":,[]{}[]')
"""Signs of Chinese and Vietnamese typing -> those of JSON."""
TRIMMED = " \t\r\n\"'`“”‘’「」.。,，;；:：!！*-"


def first_list(words: str) -> tuple[list[object], bool] | None:
    """The first JSON list in a model's words, and whether other words stand around it."""
    decoder, position = json.JSONDecoder(), -1
    for _ in range(MOST_TRIES):
        position = words.find("[", position + 1)
        if position < 0:
            return None
        try:
            found, end = decoder.raw_decode(words, position)
        except json.JSONDecodeError:
            continue
        except RecursionError:
            return None
        return (
            (found, bool(words[:position].strip() or words[end:].strip()))
            if isinstance(found, list)
            else None
        )
    return None


def items(words: str) -> tuple[list[object], list[str]] | None:
    """The items of something that was meant as JSON, and what was mended; ``None`` where nothing
    was."""
    words = words[:LONGEST]
    opening = re.search(r"[\[{［｛【]", words)
    if opening is None or _deep(words):
        return None
    body, repairs = words[opening.start() :], [JSON]
    if opening.start():
        repairs.append(AROUND)
    plain = body.translate(PUNCTUATION)
    for text in dict.fromkeys((body, plain) if body[0] in "[{" else (plain,)):
        whole = _without_cut_tail(text)
        found = mended(whole)
        rows = _rows(found)
        if rows is not None and (rows or whole == text):
            more = [CUT] if whole != text else []
            if isinstance(found, dict):
                more.append(SINGLE if _is_item(found) else BY_LABEL)
            strict = _strict(body)
            return rows, ([*repairs[1:], *more] if strict else [*repairs, *more])
    return None


def _strict(body: str) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _deep(words: str) -> bool:
    depth = 0
    for sign in words:
        depth += (sign in "[{") - (sign in "]}")
        if depth > DEEPEST:
            return True
    return False


def _without_cut_tail(text: str) -> str:
    """Text whose last object was cut off, without that object: half a quote is not a quote."""
    end, start = text.rfind("}"), text.rfind("{")
    if start > end and end >= 0:
        return text[: end + 1] + "]"
    return "[]" if start > end and text.lstrip().startswith("[") else text


def mended(text: str) -> object:
    """JSON as the library mends it; nothing is run."""
    from json_repair import repair_json

    try:
        return repair_json(text, return_objects=True)
    except (RecursionError, ValueError):
        return None


def _is_item(found: dict[object, object]) -> bool:
    return "label" in found and "text" in found


def _rows(found: object) -> list[object] | None:
    """A list of items of a list, of one item, or of ``{label: [quotes]}``."""
    if isinstance(found, dict):
        if _is_item(found):
            return [found]
        lists = [value for value in found.values() if isinstance(value, list)]
        if len(found) == 1 and lists and all(isinstance(row, dict) for row in lists[0]):
            return lists[0]  # {"entities": [...]}
        return [
            {"label": label, "text": quote}
            for label, quotes in found.items()
            for quote in (quotes if isinstance(quotes, list) else [quotes])
        ] or None
    if isinstance(found, list) and all(isinstance(row, dict) for row in found):
        return [item for row in found for item in ([row] if _is_item(row) else _rows(row) or [row])]
    return None


LINE = re.compile(
    r"^[\s*\-•\d.)]*(?P<label>[^:：\n]{1,60}?)\s*(?:实体|entities|entity)?\s*[:：]\s*(?P<quotes>.+)$",
    re.MULTILINE,
)


def by_line(words: str, names: Names) -> list[object] | None:
    """Items of lines such as ``drug: aspirin, heparin``; only lines that begin with a label of the
    card are read."""
    rows: list[object] = []
    for line in LINE.finditer(words[:LONGEST]):
        if names.of(line["label"]) is None:
            continue
        for quote in re.split(r"[,，;；、|]", line["quotes"]):
            bare = quote.strip(TRIMMED)
            if bare and fold(bare) not in NOTHING:
                rows.append({"label": line["label"].strip(), "text": bare})
    return rows or None


def says_nothing(words: str) -> bool:
    """Whether the words say that there is nothing to list."""
    return fold(words.strip(TRIMMED)) in NOTHING


class Names:
    """Labels of a card, found as they are or folded (case, width, Unicode form, blanks,
    underscores)."""

    def __init__(self, names: Sequence[str], titles: Sequence[str] = ()) -> None:
        self.names = names
        self.folded: dict[str, str | None] = {}
        for shown, name in [*zip(names, names, strict=True), *zip(titles, names, strict=False)]:
            key = _key(shown)
            if key:
                self.folded[key] = name if self.folded.get(key, name) == name else None

    def of(self, word: object) -> str | None:
        """The label that a word means."""
        if not isinstance(word, str):
            return None
        return word if word in self.names else self.folded.get(_key(word.strip(TRIMMED)))


@lru_cache(maxsize=10_000)
def pattern_of(key: str) -> re.Pattern[str]:
    """Where folded words name a label, whole and, of Latin letters, also in the plural."""
    *front, last = map(re.escape, key.split(" "))
    body = r"[\s_-]+".join(front)
    numbered = re.fullmatch(r"[ivx]{1,4}|\d{1,2}|[a-d]", last)  # "stage: II"
    body += (r"(?:[\s_-]+|:\s*)" if numbered else r"[\s_-]+") * bool(front) + last
    latin = "[0-9A-Za-z_\u00c0-\u024f\u1e00-\u1eff]"  # beside Chinese signs a word may begin
    before = "" if _glued(key[0]) else f"(?<!{latin})"
    plural = "(?:e?s)?" if key.isascii() else ""
    after = "" if _glued(key[-1]) else f"{plural}(?!{latin})"
    return re.compile(before + body + after)


def _key(word: str) -> str:
    return " ".join(fold(word).replace("_", " ").replace("-", " ").split())


def _glued(sign: str) -> bool:
    """Whether a sign is of a script without blanks between words."""
    return not sign.isascii() and sign.isalpha() and "CJK" in _name(sign)


def _name(sign: str) -> str:
    from unicodedata import name

    return name(sign, "")


def fold(text: str) -> str:
    """A text without differences of case, width and Unicode form."""
    return normalize("NFC", normalize("NFKD", text).casefold()).strip()


class Folded:
    """A text in which quotes are looked for without regard to case, width, Unicode form and kind of
    blanks."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def pieces(self) -> tuple[str, list[int], list[int]]:
        """The folded text, and where each of its characters begins and ends in the text."""
        made: list[str] = []
        starts: list[int] = []
        ends: list[int] = []
        for start, end in _clusters(self.text):
            piece = normalize("NFKD", self.text[start:end]).casefold()
            if piece.isspace():
                if made and made[-1] == " ":
                    ends[-1] = end
                    continue
                piece = " "
            for sign in piece:
                made.append(sign)
                starts.append(start)
                ends.append(end)
        return "".join(made), starts, ends

    def places(self, quote: str) -> Iterator[tuple[int, int]]:
        """Where a quote stands in the text, by whole characters of it."""
        folded, starts, ends = self.pieces
        wanted = " ".join(
            "".join(normalize("NFKD", quote[a:b]).casefold() for a, b in _clusters(quote)).split()
        )
        position = folded.find(wanted) if wanted else -1
        while position >= 0:
            last = position + len(wanted) - 1
            begins = not position or starts[position] != starts[position - 1]
            closes = last + 1 == len(folded) or starts[last + 1] != starts[last]
            if begins and closes:
                yield starts[position], ends[last]
            position = folded.find(wanted, position + 1)


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Characters with the marks that follow them."""
    start = 0
    for position in range(1, len(text) + 1):
        if position == len(text) or not combining(text[position]):
            yield start, position
            start = position


def unique(reasons: Iterable[str]) -> tuple[str, ...]:
    """Each reason once, in order."""
    return tuple(dict.fromkeys(reasons))
