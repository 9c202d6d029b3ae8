"""What a file that is not UTF-8 may be written in: candidates, and which of them reads as words.

Any bytes are valid GB18030 soon enough, and all are valid in most one-byte encodings; so what
counts is whether the signs that come out are those of a language, one beside the other as its words
have them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from unicodedata import normalize

from residency.core.types import Value

SAMPLE = 1 << 16
"""Bytes that are looked at."""
ENOUGH = 0.8
"""Share of words from which text is taken to be in an encoding."""
_TONES = re.compile("[\u0300\u0301\u0303\u0309\u0323]")
_SYLLABLE = re.compile(
    r"(?:b|ch?|d|đ|gh?|gi|h|kh?|l|m|ngh?|nh?|ph?|qu|r|s|th?|tr|v|x)?"
    r"(?:uyê|uôi|ươi|ươu|iêu|yêu|oai|oay|oeo|uây|uya|uyu|[aăâeêioôơuưy]{1,2})(?:ch|nh|ng|c|m|n|p|t)?"
)
_VI_MARKED = re.compile("[ăâđêôơư\u0300\u0301\u0303\u0309\u0323]")
_WORD = re.compile(r"[^\W\d_]+(?:[\u0300-\u036f][^\W\d_]*)*")
_HAN = re.compile(r"[\u3400-\u9fff]")
_WESTERN = frozenset("àâäáãåæçèéêëìíîïñòóôöõøœùúûüýÿßšžÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖÕØŒÙÚÛÜÝŠŽ")


class Candidate(Value, frozen=True):
    """An encoding that the bytes may be in."""

    codec: str
    name: str
    language: str
    words: float
    """Share of what is no ASCII that stands in words of the language."""


def _vietnamese(text: str) -> float:
    words = [normalize("NFD", word.lower()) for word in _WORD.findall(normalize("NFC", text))]
    marked = [word for word in words if not word.isascii()]
    good = 0
    for word in marked:
        plain = normalize("NFC", _TONES.sub("", word))
        tones = len(_TONES.findall(word))
        good += (
            tones < 2
            and bool(_VI_MARKED.search(normalize("NFC", word)) or tones)
            and bool(_SYLLABLE.fullmatch(plain))
        )
    odd = len(re.findall(r"[^\x00-\x7f\w\s\u0300-\u036f.,;:()°±–—‘’“”…«»µ²³•-]", text))
    return good / (len(marked) + odd) if marked else 0.0


def _chinese(text: str) -> float:
    """Common signs (the first level of GB 2312, or of Big5), none of them alone between Latin
    letters."""
    signs = [sign for sign in text if not sign.isascii()]
    good = 0
    for found in re.finditer(r"[\u3400-\u9fff]+|[\u3000-\u303f\uff00-\uffef]", text):
        around = (
            text[max(0, found.start() - 1) : found.start()] + text[found.end() : found.end() + 1]
        )
        if len(found[0]) == 1 and _HAN.match(found[0]) and re.search("[a-z]", around):
            continue
        good += sum(1 for sign in found[0] if not _HAN.match(sign) or _common(sign))
    return good / len(signs) if signs else 0.0


def _common(sign: str) -> bool:
    for codec, last in (("gb2312", 0xD7), ("big5", 0xC6)):
        try:
            return sign.encode(codec)[0] <= last
        except UnicodeEncodeError:
            continue
    return False


def _western(text: str) -> float:
    """Letters of Western languages inside of words that are mostly plain letters."""
    signs = [sign for sign in text if not sign.isascii()]
    good = sum(sign in "°±µ²³–—‘’“”…«»€" for sign in signs)
    for word in _WORD.findall(text):
        others = [sign for sign in word if not sign.isascii()]
        mixed = re.search(r"[a-zß-ÿ][A-ZÀ-Þ]", word)
        if not mixed and len(others) * 3 <= max(3, len(word)) and set(others) <= _WESTERN:
            good += len(others)
    return 0.95 * good / len(signs) if signs else 0.0


CANDIDATES: tuple[tuple[str, str, str, Callable[[str], float]], ...] = (
    ("utf-16", "UTF-16", "", lambda text: 1.0),
    ("cp1258", "CP1258", "Vietnamese", _vietnamese),
    ("gb18030", "GB18030", "Chinese", _chinese),
    ("big5", "BIG5", "Chinese", _chinese),
    ("cp1252", "CP1252", "Western", _western),
    ("iso8859-15", "ISO-8859-15", "Western", _western),
)


def candidates(data: bytes) -> list[Candidate]:
    """Encodings that the bytes are valid in, those that read as words first; of ones that read
    alike what charset-normalizer takes them for comes first."""
    from charset_normalizer import from_bytes

    sample = data[:SAMPLE]
    marked = sample.startswith((b"\xff\xfe", b"\xfe\xff"))
    found = []
    for codec, name, language, share in CANDIDATES:
        if (codec == "utf-16") != marked:
            continue
        # A sign may be cut at the end of the sample.
        for size in range(len(sample), max(0, len(sample) - 4), -1):
            try:
                text = sample[:size].decode(codec)
            except UnicodeDecodeError:
                continue
            found.append(Candidate(codec=codec, name=name, language=language, words=share(text)))
            break
    codecs = [one.codec for one in found]
    liked = from_bytes(sample, cp_isolation=codecs).best() if len(codecs) > 1 else None
    first = liked.encoding.replace("_", "-") if liked else ""
    return sorted(found, key=lambda one: (-round(one.words, 2), one.codec != first))


def advice(data: bytes) -> str:
    """What to do with a file that is not UTF-8, in a clause: the encoding that reads as words, and
    those that do not."""
    found = candidates(data)
    if not found:
        return "convert it to UTF-8"
    best, others = found[0], found[1:]
    told = ", ".join(f"{one.name} ({one.words:.0%})" for one in others)
    if best.words < ENOUGH:
        shares = ", ".join(f"{one.name} {one.words:.0%}" for one in found)
        return (
            "convert it to UTF-8 from what it was written in; as words it reads in none of: "
            f"{shares}. A Vietnamese text by font (TCVN3, VNI) needs a converter of fonts"
        )
    also = [one.name for one in others if one.words >= ENOUGH and one.language != best.language]
    unsure = f"; look at the result, since {also[0]} reads as words too" if also else ""
    share = f"{best.words:.0%} of its signs beyond ASCII are in {best.language} words"
    return (
        f"convert it, for example with iconv -f {best.name} -t UTF-8 "
        f"({share if best.language else 'a byte order mark says so'}"
        f"{f'; in {told}' if told else ''}){unsure}"
    )
