"""Text as hospitals store it: bytes in old encodings, Vietnamese by font, RTF and HTML, each read
exactly or not at all."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from contextlib import suppress
from datetime import date, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from residency.core.edits import Edits
from residency.ingest.sources import Encoding, Format

DATA = Path(__file__).parent / "data/encodings.toml"
FONTS = ("tcvn3", "vni")
UNREADABLE = "the text cannot be read in this encoding"
BROKEN = "the formatted text cannot be taken apart"
LETTERS = set("aăâeêioôơuưy") | set("AĂÂEÊIOÔƠUƯY")
STRUCK = "characters left out: struck out or deleted"
HIDDEN = "characters left out: hidden"
PICTURE = "pictures and embedded objects left out"
IN_OBJECT = "characters left out: embedded objects"
ASIDE = "characters left out: footnotes, comments, headers and footers"
UNSEEN = "characters left out: scripts, styles and the head of a page"
CONTROL = "characters left out: control characters"
MARKS = {"°": "\u0300", "±": "\u0309", "²": "\u0303", "³": "\u0301", "´": "\u0323"}
"""TCVN 5712's five marks that stand behind their letter."""
HTML = re.compile(
    r"<(?:!doctype\s+html|html|body)\b|</(?:p|div|span|b|i|u|em|strong|td|tr|table|ul|ol|li|h[1-6]|font|body|html)\s*>|<br\s*/?>",
    re.IGNORECASE,
)
BLOCKS = frozenset(
    [
        "p",
        "div",
        "br",
        "tr",
        "table",
        "ul",
        "ol",
        "li",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "pre",
        "section",
        "article",
        "header",
        "footer",
        "dl",
        "dt",
        "dd",
    ]
)


class Unreadable(Exception):
    """Why a text cannot be read; holds nothing of it."""


def read(
    value: object,
    encoding: Encoding,
    lang: str,
    format: Format,
    left: Counter[str] | None = None,
) -> tuple[str, Edits | None]:
    """A column's value as text, and how offsets of the stored text move; None where it was taken
    apart (RTF, HTML). What of its words is left out then is counted in ``left`` by its reason.

    Raises ``Unreadable``: nothing is guessed.
    """
    if value is None:
        return "", Edits(source_length=0)
    if isinstance(value, datetime | date):
        value = value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        text = decode_bytes(bytes(value), encoding, lang)
    else:
        text = str(value)
    edits = Edits(source_length=len(text))
    if encoding in FONTS:
        text, edits = by_font(text, encoding)
    kind = format_of(text) if format == "auto" else format
    if kind == "plain":
        return text, edits
    return (of_rtf if kind == "rtf" else of_html)(text, Counter() if left is None else left), None


def decode_bytes(data: bytes, encoding: str, lang: str = "") -> str:
    """Bytes as text, strictly; raises ``Unreadable``."""
    if encoding in FONTS:
        # Each byte is the sign that a Western system shows; or the bytes are these signs in UTF-8,
        # which texts in these fonts never look like.
        tried = ["utf-8-sig", "cp1252", "latin-1"]
    elif encoding != "auto":
        tried = [{"utf-8": "utf-8-sig"}.get(encoding, encoding)]
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        tried = ["utf-16"]
    else:
        tried = ["utf-8-sig", "gb18030"] if lang == "zh" else ["utf-8-sig"]
    for name in tried:
        with suppress(UnicodeDecodeError):
            return data.decode(name)
    raise Unreadable(UNREADABLE)


# Vietnamese by font


@cache
def tcvn3() -> dict[str, str]:
    """Stored sign -> letter."""
    found: dict[str, str] = tomllib.loads(DATA.read_text("utf-8"))["tcvn3"]
    return found


@cache
def vni() -> dict[str, str]:
    """Stored sign, or letter and sign -> letter; capitals too, also where only the letter is
    one."""
    data = tomllib.loads(DATA.read_text("utf-8"))["vni"]
    small = dict(data["single"])
    for sign, pairs in data["pair"].items():
        small |= {pair[0] + sign: pair[1] for pair in pairs.split()}
    capital = {key.upper(): letter.upper() for key, letter in small.items()}
    mixed = {key[0].upper() + key[1:]: letter.upper() for key, letter in small.items()}
    return small | mixed | capital


def by_font(stored: str, encoding: Encoding) -> tuple[str, Edits]:
    """Text whose Vietnamese letters were drawn by a font, as Unicode; raises ``Unreadable`` for a
    sign that no letter bears."""
    from unicodedata import normalize

    table = tcvn3() if encoding == "tcvn3" else vni()
    pieces: list[tuple[int, int, str]] = []
    position = 0
    while position < len(stored):
        sign, pair = stored[position], stored[position : position + 2]
        letter = table.get(sign, sign)
        if encoding == "vni":
            both = table.get(pair, "") if len(pair) == 2 else ""
        else:
            marked = len(pair) == 2 and pair[1] in MARKS and letter in LETTERS
            both = normalize("NFC", letter + MARKS[pair[1]]) if marked else ""
        if both:
            pieces.append((position, position + 2, both))
            position += 2
            continue
        stray = encoding == "tcvn3" and sign in MARKS
        if stray or (sign not in table and _foreign(sign)):
            raise Unreadable(UNREADABLE)
        if letter != sign:
            pieces.append((position, position + 1, letter))
        position += 1
    edits = Edits.of(stored, pieces)
    return edits.apply(stored), edits


def _foreign(sign: str) -> bool:
    """Whether a sign is no plain Latin one and no punctuation of a Western system."""
    return not (sign.isascii() or (sign in "\xa0–—‘’“”•…°±²³µ·½¼¾«»€" and not sign.isalpha()))


# Formatted text


def format_of(text: str) -> Format:
    """What a text is, by how it begins and by its tags."""
    if text.lstrip()[:5] == "{\\rtf":
        return "rtf"
    return "html" if "<" in text and HTML.search(text) else "plain"


def of_rtf(text: str, left: Counter[str] | None = None) -> str:
    """The words of an RTF text, powers as ``10^9``, without those that are struck out, deleted or
    hidden, which are counted in ``left``; raises ``Unreadable``."""
    from striprtf.striprtf import rtf_to_text

    if text.lstrip()[:5] != "{\\rtf":
        raise Unreadable(BROKEN)
    try:
        seen = _visible_rtf(text, Counter() if left is None else left)
        words = str(rtf_to_text(seen, errors="strict"))
        if re.search(r"[\ud800-\udfff]", words):  # a sign that RTF writes as two
            words = words.encode("utf-16", "surrogatepass").decode("utf-16")
        return with_powers(words).strip("\n")
    except (UnicodeError, LookupError, ValueError, IndexError, TypeError):
        raise Unreadable(BROKEN) from None


class _Run(NamedTuple):
    """How the text of an RTF group is drawn at a place."""

    why: str = ""
    """Why it is not shown as a part of the text."""
    raised: bool = False
    aside: str = ""
    """Why the group is no part of the text."""
    fallback: int = 1
    """Signs behind a Unicode character that stand for it elsewhere (``uc``)."""


STRUCK_RTF = ("strike", "striked", "deleted")
ASIDE_RTF = re.compile(r"footnote|annotation|(?:header|footer)[flr]?|shptxt|dptxbxtext")


def _visible_rtf(text: str, left: Counter[str]) -> str:
    """An RTF text without the signs that it does not show, raised text between two marks."""
    from striprtf.striprtf import PATTERN, destinations, specialchars

    out: list[str] = []
    groups: list[_Run] = []
    run, raised, skip = _Run(), False, 0
    for token in PATTERN.finditer(text):
        word, arg, code, sign, brace, letter = token.groups()
        drawn = word == "u" or (word in specialchars and word not in LAYOUT_RTF)
        if skip and (code or letter):  # stands for the Unicode sign before it
            skip -= 1
            out += [] if run.why and not run.aside else [token[0]]
        elif drawn or code or letter or sign in ("~", "_", "-", "{", "}", "\\"):
            skip = run.fallback if word == "u" else 0
            if run.aside or run.why:
                second = word == "u" and 0xDC00 <= int(arg or 0) % 0x10000 < 0xE000
                left[run.aside or run.why] += not (second or (letter or "x").isspace())
            elif run.raised != raised:
                raised = run.raised
                out.append(RAISED_RTF[raised])
            out += [] if run.why and not run.aside else [token[0]]
        else:
            skip = 0 if word or brace or sign else skip
            if brace == "{":
                groups.append(run)
            elif brace == "}":
                run = groups.pop() if groups else run
                if raised and not run.raised:
                    raised = False
                    out.append(RAISED_RTF[False])
            elif sign == "*" or word in destinations or word in ("fonttbl", "nonshppict"):
                pictured = word in ("pict", "object") and run.aside not in (AGAIN, IN_OBJECT)
                left.update({PICTURE: 1} if pictured else {})
                run = run._replace(aside=_aside(word or "", run.aside))
            elif word:
                run = _drawn(run, word, arg)
            out.append(token[0])
    del left[MARKUP], left[AGAIN]
    return "".join(out)


MARKUP, AGAIN = " ", "  "
"""In the place of a reason: what is no text, such as the table of fonts; a picture or an object,
which is counted, and what stands for it in other programs."""
LAYOUT_RTF = ("par", "sect", "page", "line", "tab", "row", "cell", "nestcell")
RAISED_RTF = {True: r"{\uc0\u-560}", False: r"{\uc0\u-559}"}


def _aside(word: str, before: str) -> str:
    """Why a destination is no part of the text; what stands in one is left out with it."""
    if word in ("pict", "object", "nonshppict"):
        return AGAIN
    if word == "result":  # what is seen of an embedded object
        return IN_OBJECT
    return before.strip() or (ASIDE if ASIDE_RTF.fullmatch(word) else MARKUP)


def _drawn(run: _Run, word: str, arg: str | None) -> _Run:
    """How text is drawn behind a control word."""
    on = arg != "0"
    if word == "plain":
        return _Run(aside=run.aside, fallback=run.fallback)
    if word == "uc":
        return run._replace(fallback=int(arg or 1))
    if word in STRUCK_RTF:
        return run._replace(why=STRUCK if on else "")
    if word == "v":
        return run._replace(why=HIDDEN if on else "")
    if word in ("super", "up"):
        return run._replace(raised=on)
    return run._replace(raised=False) if word in ("nosupersub", "sub") else run


UP, DOWN = "\ufdd0", "\ufdd1"
"""Around raised text while it is taken apart: signs that no text may hold."""
_RAISED = re.compile(f"(?<=[\\w)\\]]){UP}(?=[-+−–]?\\d|[nxk]{DOWN})([^{UP}{DOWN}]*){DOWN}")


def with_powers(text: str) -> str:
    """Raised numbers behind a sign as ``10^9``; other raised text as it is."""
    return re.sub(f"[{UP}{DOWN}]", "", _RAISED.sub(r"^\1", text))


def of_html(text: str, left: Counter[str] | None = None) -> str:
    """The words of an HTML text, a line for each block and row, cells parted by tabs, powers as
    ``10^9``, without those that are struck out, deleted or hidden, which are counted in ``left``;
    raises ``Unreadable``."""
    from lxml import etree, html

    left = Counter() if left is None else left
    text, count = re.subn(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff]", "", text)
    left.update({CONTROL: count} if count else {})
    if not text.strip():
        return ""
    parser = html.HTMLParser(
        encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True
    )
    try:
        tree = html.document_fromstring(_literal(text).encode("utf-8"), parser=parser)
    except (etree.LxmlError, ValueError):
        raise Unreadable(BROKEN) from None
    out: list[str] = []
    _words(tree, out, left)
    return with_powers(tidy("".join(out)))


def _literal(text: str) -> str:
    """HTML in which a less-than sign that begins no element is written as one: ``K<bt`` is
    text."""
    from lxml.html import defs

    tag = r"/?(?:" + "|".join(sorted(defs.tags)) + r"|\w+:\w+)(?=[\s/>])"
    return re.sub(rf"<(?!{tag}|!--|!doctype|!\[|\?)", "&lt;", text, flags=re.IGNORECASE)


def _words(node: Any, out: list[str], left: Counter[str]) -> None:
    """Append the words of an element, in order, save what is not shown as a part of the text."""
    tag = node.tag
    if not isinstance(tag, str):
        return
    if why := _why_unseen(node):
        count_left(node, why, left)
        return
    left.update({PICTURE: 1} if tag in ("img", "svg", "embed", "object") else {})
    around = "\n" if tag in BLOCKS else ""
    raised = tag == "sup" or "vertical-align:super" in _style(node)
    out += (UP if raised else around, _blanks(node.text, tag))
    for child in node:
        _words(child, out, left)
        out.append(_blanks(child.tail, tag))
    out.append(DOWN if raised else "\t" if tag in ("td", "th") else around)


def count_left(node: Any, why: str, left: Counter[str]) -> None:
    """Count the signs of an element that is left out, blanks apart."""
    count = len("".join("".join(node.itertext()).split()))
    left.update({why: count} if count else {})


def _style(node: Any) -> str:
    return re.sub(r"\s", "", node.get("style") or "").lower()


def _why_unseen(node: Any) -> str:
    """Why an element is not shown as a part of the text; the empty string where it is."""
    if node.tag in ("script", "style", "head", "title"):
        return UNSEEN
    style = _style(node)
    if node.tag in ("s", "strike", "del") or re.search(r"text-decoration[^;]*line-through", style):
        return STRUCK
    unseen = re.search(
        r"display:none|visibility:hidden|mso-hide:all|font-size:0(?:[^.\d]|$)", style
    )
    hidden = node.get("hidden") is not None or node.tag in ("template", "noscript")
    return HIDDEN if hidden or unseen else ""


def _blanks(text: str | None, tag: str) -> str:
    """A text with single blanks, save in preformatted text."""
    return (text or "") if tag == "pre" else re.sub(r"[ \t\r\n\f]+", " ", text or "")


def tidy(text: str) -> str:
    """Lines without blanks at their ends, none of them empty."""
    single = re.sub(r" *\t *", "\t", re.sub(r" {2,}", " ", text))
    return "\n".join(line for line in map(str.strip, single.split("\n")) if line)
