"""Marked notes told again with other people, places, dates and numbers, each written as the one was
that it takes the place of."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

from residency.core.types import Value
from residency.core.units import CJK
from residency.synth.marked import MarkedNote
from residency.synth.people import COMPOUND
from residency.synth.planting import bare

PEOPLE = ("name", "relative", "clinician")
STAYS, BROKEN, SWAPPED = 0.12, 0.4, 0.1
"""Share of the identifiers that stay as the author wrote them, of those in notes that a scanner
broke, and of what must stay that another such place takes the place of."""
HAN = re.compile(rf"[{CJK}·•]+")
INITIALS = re.compile(r"[A-ZĐ](?:[. ]{0,2}[A-ZĐ]){0,3}\.?")
WORD = re.compile(r"[^\W\d_]+(?:['’ʼ-][^\W\d_]+)*")
LADY = re.compile(r"(?i)\b(?:mr|mrs|ms|miss|mx|dr|prof|sister|nurse|consultant|sr|rn)\.? ?$")
TITLES = re.compile(
    "van|de|der|den|bin|bte|binte|bint|el|al|von|la|jr|ap|ferch|dr|mr|mrs|ms|miss|prof|sr|sir|rn|np|hca|mo|"
    "en|sn|ain|ot|pt|sister|nurse|big|wee|old|young|uncle|auntie|aunty|nana|nan|tio|tia"
)
"""Words of a name that stay."""
NICK = re.compile("^[小老阿大]|[哥姐叔姨爷奶嫂婶伯婆太总工]$")
NUMERALS = "一二三四五六七八九"
PART = re.compile(r"(\s*[,，、;；/\n|]\s*|\s+[-–]\s+)")
ZH_PART = re.compile(
    ".+?(?:自治区|自治州|街道|社区|小区|新村|[省市州县區区旗镇鎮乡鄉村屯组路街巷弄里道号號栋棟幢座楼樓室]|$)"
)
PLACES = ("address", "organisation")


class Names(Value, frozen=True):
    """What people and places of a language are called."""

    families: Sequence[str]
    given: Sequence[str]
    middles: Sequence[str] = ()
    whole: Sequence[str] = ()
    """Names of minorities and foreigners, which have other parts."""
    places: Sequence[str] = ()
    """Parts of addresses."""
    organisations: Sequence[str] = ()
    months: Sequence[str] = ()
    days: Sequence[str] = ()
    """Days in words."""


class Redrawer:
    """Tells the notes of a language again; ``names``: beside those that the notes hold."""

    def __init__(self, lang: str, notes: Sequence[MarkedNote], names: Names) -> None:
        self.lang, self.notes, self.names = lang, notes, names
        self.families = {name.casefold() for name in names.families}
        self.given = {name.casefold() for name in names.given}
        self.kept = [n.text[a:b] for n in notes for a, b, kind in n.marks if not kind]
        self.pools: dict[str, dict[str, list[str]]] = {kind: defaultdict(list) for kind in PLACES}
        known = [(n.text[a:b], k) for n in notes for a, b, k in n.marks if k in PLACES]
        known += [(one, "address") for one in names.places]
        known += [(one, "organisation") for one in names.organisations]
        for value, kind in known:
            for part in self._parts(value)[::2] if kind == "address" else [value]:
                if WORD.search(part):
                    self.pools[kind][self._class(part, kind)].append(part)
        self.generic = {kind: self._generic(kind) for kind in PLACES}
        words = (w for by in self.pools["address"].values() for p in by for w in WORD.findall(p))
        self.stems = [w for w in words if w.casefold() not in self.generic["address"]]

    def again(self, note: MarkedNote, rng: random.Random) -> MarkedNote:
        """A note with other identifiers; the same person has one name in it."""
        told: dict[tuple[str, str], str] = {}
        stays = BROKEN if note.head.endswith("ocr") else STAYS
        text, last, marks = "", 0, list[tuple[int, int, str]]()
        marked = self.lang != "vi" or bare(note.text) != note.text
        for start, end, kind in note.marks:
            text += note.text[last:start]
            old = note.text[start:end]
            if (new := told.get((kind, old))) is None:
                new = self._other(old, kind, text, rng, stays)
                new = told[kind, old] = new if marked or not kind else bare(new)
            marks.append((len(text), len(text) + len(new), kind))
            text, last = text + new, end
        return MarkedNote(note.head, text + note.text[last:], tuple(marks))

    def _other(self, old: str, kind: str, before: str, rng: random.Random, stays: float) -> str:
        if not kind:
            return rng.choice(self.kept) if rng.random() < SWAPPED else old
        if rng.random() < stays or not old.strip():
            return old
        if kind in PEOPLE:
            return self._person(old, before, rng)
        if kind in PLACES:
            return self._place(old, kind, rng)
        if kind in ("date", "birth_date"):
            return self._date(old, kind, rng)
        if kind == "age":
            return re.sub(r"\d+", lambda _: str(rng.randint(90, 104)), old)
        return self._number(old, kind, rng)

    # people

    def _person(self, old: str, before: str, rng: random.Random) -> str:
        compact = re.sub(r"\s", "", old)
        if HAN.fullmatch(compact):
            made = self._han(compact, rng)
            return " ".join(made) if " " in old and len(compact) > 1 else made
        if INITIALS.fullmatch(old):
            letters = "ABCDĐGHKLMNPQSTVXY" if self.lang == "vi" else "ABCDEFGHJKLMNPRSTVWYZ"
            return re.sub(r"[A-ZĐ]", lambda _: rng.choice(letters), old)
        words = WORD.findall(old)
        if self.names.whole and len(words) > 1 and self.lang != "zh" and rng.random() < 0.12:
            return _cased(rng.choice(self.names.whole), old)
        place = iter(range(len(words)))
        return WORD.sub(lambda m: self._word(m[0], next(place), words, before, rng), old)

    def _word(self, word: str, at: int, words: list[str], before: str, rng: random.Random) -> str:
        """Another word in the place of one of a name's words."""
        folded, names = word.casefold(), self.names
        if len(word) == 1:
            return rng.choice("ABCDEGHJKLMNPRST") if word.isupper() else word
        if TITLES.fullmatch(folded) and len(words) > 1 and self.lang == "en":
            return word
        if self.lang == "zh":
            made = rng.choice(names.middles).capitalize()
        elif self.lang == "vi":
            first, last = at == 0, at == len(words) - 1
            family = first and len(words) > 1 and (folded in self.families or len(words) > 2)
            middle = names.middles if rng.random() < 0.7 else names.given
            made = rng.choice(names.families if family else names.given if last else middle)
            made = made.split()[-1] if not family else made
            if folded == "thị" and rng.random() < 0.7:
                made = "Thị"
        else:
            family = len(words) > 1 and at == len(words) - 1
            if len(words) == 1:
                known = (folded in self.families) - (folded in self.given)
                family = (
                    bool(LADY.search(before)) or known > 0 or (not known and rng.random() < 0.5)
                )
            made = rng.choice(names.families if family else names.given)
        return _cased(made, word)

    def _han(self, old: str, rng: random.Random) -> str:
        names = self.names
        if found := re.fullmatch("(.+)(之[子女][大小甲乙]?|[a-zA-Z]+)", old):
            return self._han(found[1], rng) + found[2]
        family, given = rng.choice(names.families), rng.choice(names.given)
        if len(old) == 2 and NICK.search(old):
            called = rng.choice((family[0], given[-1]))
            return old[0] + called if re.match("[小老阿大]", old) else called + old[1]
        if len(old) > 1 and len(set(old)) == 1:
            return given[-1] * len(old)
        if "·" in old or "•" in old or len(old) > 4:
            return rng.choice(names.whole)
        if len(old) == 1:
            return family if old in self.families or rng.random() < 0.7 else given[-1]
        head = 2 if old.startswith(COMPOUND) and len(old) > 2 else 1
        if old[:head] not in self.families or (len(old) == 4 and head == 1):
            return given if len(old) < 4 and rng.random() < 0.8 else rng.choice(names.whole)
        if rng.random() < 0.05:
            return rng.choice(names.whole)
        made = "".join(rng.choice(names.given)[-1] for _ in range(len(old) - head))
        return family + (given if rng.random() < 0.5 and len(given) == len(made) else made)

    # places

    def _parts(self, value: str) -> list[str]:
        """The parts of an address, with what stands between them at odd places."""
        if re.search(f"[{CJK}]", value):
            found = [one for one in ZH_PART.findall(value.strip()) if one]
            return [piece for one in found for piece in (one, "")][:-1]
        return PART.split(value)

    def _class(self, part: str, kind: str) -> str:
        """What a part is like: its generic word, where it has one."""
        if found := re.search(f"[{CJK}]+$", part):
            return found[0][-2:] if kind == "organisation" else found[0][-1]
        words = WORD.findall(part.casefold())
        if not words:
            return ""
        generic = words[0] if self.lang == "vi" else words[-1]
        number = "#" if re.search(r"\d", part) else ""
        return generic + number if self.lang == "vi" or kind == "address" else ""

    def _place(self, old: str, kind: str, rng: random.Random) -> str:
        if kind == "organisation":
            return self._part(old, kind, rng)
        parts = self._parts(old)
        made = [one if n % 2 else self._part(one, kind, rng) for n, one in enumerate(parts)]
        return "".join(made) or old

    def _part(self, old: str, kind: str, rng: random.Random) -> str:
        """A part of the same sort, or the same sort of part with another name."""
        chance = rng.random()
        if not WORD.search(old):
            return _digits(old, rng)
        pool = self.pools[kind].get(self._class(old, kind), ())
        if chance < 0.4 and len(pool) > 2:
            return _digits(_cased(rng.choice(pool), old), rng)
        if chance < 0.55 and not re.search(r"\d", old):
            every = self.pools[kind]
            return _cased(rng.choice(every[rng.choice(list(every))]), old)
        if chance < 0.9:
            return _digits(self._renamed(old, kind, rng), rng)
        return _digits(old, rng)

    def _renamed(self, old: str, kind: str, rng: random.Random) -> str:
        names = self.names
        if found := re.fullmatch(
            f"([{CJK}]{{2,4}}?)((?:第[一二三四五六七八九十]|[{CJK}])?.*)", old
        ):
            stem, rest = found.groups()
            size = max(1, min(len(old) - 1, 2 if kind == "address" else len(stem)))
            pool = [s for s in self.stems if re.search(f"[{CJK}]", s)]
            letters = (rng.choice(rng.choice(pool)[:3]) for _ in range(size))
            return "".join(letters) + (old[size:] if len(old) > size else rest)
        words = WORD.findall(old)
        generic = self.generic[kind]
        if len(words) > 1 and all(w.casefold() in generic for w in words):
            return old

        def other(match: re.Match[str]) -> str:
            word = match[0]
            if word.casefold() in generic and len(words) > 1:
                return word
            chance = rng.random()
            if self.lang == "vi":
                made = rng.choice(self.stems) if chance < 0.5 else rng.choice(names.given)
                return _cased(made.split()[-1], word)
            if len(word) < 4 and not word.istitle():
                return word
            made = invented(rng) if chance < 0.4 else rng.choice(names.families)
            return _cased(rng.choice(self.stems) if chance > 0.8 else made, word)

        return WORD.sub(other, old)

    def _generic(self, kind: str) -> frozenset[str]:
        """Words that stand in several parts: what a place is, not what it is called."""
        parts = (part for pool in self.pools[kind].values() for part in pool)
        counts = Counter(word for part in parts for word in set(WORD.findall(part.casefold())))
        return frozenset(word for word, count in counts.items() if count > 3)

    # dates and numbers

    def _date(self, old: str, kind: str, rng: random.Random) -> str:
        early, late = (1930, 2024) if kind == "birth_date" else (2008, 2026)

        def number(match: re.Match[str]) -> str:
            run = match[0]
            if len(run) in (6, 8):
                day = f"{rng.randint(1, 12):02d}{rng.randint(1, 28):02d}"
                return str(rng.randint(early, late))[8 - len(run) :] + day
            if len(run) == 4:
                return str(rng.randint(early, late))
            if len(run) > 2 or int(run) > 31:
                return _digits(run, rng)
            made = rng.randint(1, 12) if int(run) <= 12 else rng.randint(13, 28)
            return f"{made:0{len(run)}d}" if run[0] == "0" or made > 9 else str(made)

        def word(match: re.Match[str]) -> str:
            for listed in (self.names.months, self.names.days):
                if match[0].casefold() in {one.casefold() for one in listed}:
                    return _cased(rng.choice(listed), match[0])
                if match[0].casefold() in {one[:3].casefold() for one in listed}:
                    return _cased(rng.choice(listed)[:3], match[0])
            return match[0]

        if self.lang == "zh" and not re.search(r"\d", old):
            return re.sub(f"(?<![十])[{NUMERALS}]", lambda _: rng.choice(NUMERALS), old)
        return _ordinals(re.sub(r"\d+", number, WORD.sub(word, old)))

    def _number(self, old: str, kind: str, rng: random.Random) -> str:
        if kind == "email":
            made = re.sub(r"[a-zA-Z]{3,}(?=[^@]*@)", lambda _: self._login(rng), old)
            return _digits(made, rng)
        if kind == "url":
            return _digits(old, rng)
        made = _digits(old, rng)
        if self.lang == "zh" and not re.search(r"\d", old):
            signs = "零一二三四五六七八九"
            made = re.sub(f"[{signs}〇幺两]", lambda _: rng.choice(signs + "幺"), made)
        if rng.random() < 0.5 or kind == "phone":
            return made
        return re.sub(
            r"(?<![A-Za-z])[A-Z]{1,2}(?![A-Za-z])",
            lambda match: "".join(rng.choice("ABCDEFGHKLMNPRSTUVXY") for _ in match[0]),
            made,
        )

    def _login(self, rng: random.Random) -> str:
        if self.lang == "zh":
            return "".join(rng.choice(self.names.middles).lower() for _ in range(2))
        made = bare(rng.choice((*self.names.given[:200], *self.names.families[:200]))).lower()
        return re.sub(r"[^a-z]", "", made) or "mail"


def invented(rng: random.Random) -> str:
    """A place that no list has."""
    head = (
        rng.choice(HEADS) if rng.random() < 0.8 else rng.choice(HEADS) + rng.choice(HEADS).lower()
    )
    return head + rng.choice(TAILS)


HEADS = (
    *("Ash", "Brom", "Cald", "Dun", "Elm", "Fen", "Glen", "Hart", "Inver", "Kil", "Lang", "Mar"),
    *("Nor", "Oak", "Pem", "Quar", "Ros", "Stan", "Thorn", "Ul", "Wal", "Yar", "Bal", "Kan", "Mur"),
    *("Wool", "Coo", "Sal", "Bren", "Hazel", "Mill", "Fair", "Green", "River", "Stone", "Clear"),
)
TAILS = (
    *(
        "by",
        "ford",
        "ton",
        "ham",
        "wick",
        "ley",
        "field",
        "bridge",
        "mouth",
        "worth",
        "dale",
        "more",
    ),
    *(
        "stead",
        "hurst",
        "brook",
        "pur",
        "gong",
        "bah",
        "view",
        "wood",
        "port",
        "ville",
        "burn",
        "don",
    ),
)


def _cased(new: str, old: str) -> str:
    """In the case of the old one."""
    if old.isupper() and len(old) > 1:
        return new.upper()
    return new.lower() if old.islower() else new


def _digits(text: str, rng: random.Random) -> str:
    """Other digits, each zero at the head of a number kept."""

    def other(match: re.Match[str]) -> str:
        run = match[0]
        head = run[0] if run[0] == "0" or (len(run) == 1 and rng.random() < 0.2) else ""
        drawn = "".join(rng.choice("0123456789") for _ in run[len(head) :])
        return head + (drawn if head or not drawn.startswith("0") else f"1{drawn[1:]}")

    return re.sub("[0-9]+", other, text)


def _ordinals(text: str) -> str:
    """English ordinals as they are written."""

    def right(match: re.Match[str]) -> str:
        day = int(match[1])
        ending = {1: "st", 2: "nd", 3: "rd"}.get(day % 10 if day not in (11, 12, 13) else 0, "th")
        return match[1] + _cased(ending, match[2])

    return re.sub(r"(?i)\b(\d\d?)(st|nd|rd|th)\b", right, text)
