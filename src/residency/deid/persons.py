"""Names of invented people for those of notes. Every word of a name has one surrogate for a
patient, by its part in the name: whoever is called by a part, by initials, in capitals or with a
title in any note is the same invented person, and relatives who share a family name still do."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

from residency.deid.draws import Draw
from residency.deid.names.en_shape import PARTICLES
from residency.deid.names.lists import LETTER, LOWER, UPPER, any_of, name_data
from residency.deid.names.vi import SYLLABLE
from residency.deid.view import plain

GIVEN, MIDDLE, FAMILY, KEPT = "given", "middle", "family", ""
"""Parts of a name; what is kept is no part: a particle, ``Jr``."""
Told = Mapping[str, tuple[str, str]]
"""A word of names, plain -> its part and the sex of who has it ("": not said)."""
WORDS = re.compile(rf"[{LETTER}]+(?:['’](?!s(?![{LETTER}]))[{LETTER}]+)*")
GLUED = re.compile(rf"[{UPPER}][{LOWER}]*")
STAYS = PARTICLES | {"jr", "sr", "ii", "iii", "iv", "md", "dr", "mr", "mrs", "ms", "miss", "prof"}
NO_SIGN = frozenset("某xX*＊×○〇 　")
"""Signs in the place of a given name that somebody hid, and blanks."""


class Word(NamedTuple):
    """A word of a name."""

    start: int
    end: int
    text: str
    part: str

    @property
    def key(self) -> str:
        """Plain: what the surrogate is drawn by."""
        return plain(self.text)


@cache
def data() -> Any:
    """The lists of ``data/persons.yaml``."""
    import yaml

    return yaml.safe_load((Path(__file__).parent / "data/persons.yaml").read_text("utf-8"))


class Lists:
    """What names of a language are drawn from, and told by."""

    def __init__(self, lang: str) -> None:
        own, known = data()[lang], name_data(lang)
        self.families = frozenset(
            plain(name) for key in ("families", "more_families") for name in known.get(key, ())
        )
        women = {*map(plain, (*known["female"], *own["women"], *own.get("female", ())))}
        men = {*map(plain, (*known["male"], *own["men"], *own.get("male", ())))}
        both = {*map(plain, own["both"])} | (women & men)
        self.women, self.men = frozenset(women - both), frozenset(men - both)
        self.marked = {
            sex: frozenset(n.lower() for n in (*known[sex], *own[more], *own.get(sex, ())))
            for sex, more in zip(SEXES, ("women", "men"), strict=True)
        }
        self.given = frozenset(women | men | both)
        if lang == "en":
            unclear = {word.lower() for word in known["ambiguous"]}
            drawn = {sex: [n for n in known[sex] if plain(n) not in unclear] for sex in SEXES}
            pools = {
                **drawn,
                **{key: own[key] for key in ("both", "families")},
                "middles": own["both"],
            }
        else:
            pools = {key: own[key] for key in ("female", "male", "both", "families", "middles")}
        self.pools = {key: _by_letter(names) for key, names in pools.items()}
        least = own["least"]
        sets = [
            {letter for letter, names in self.pools[key].items() if len(names) >= least}
            for key in ("female", "male", "both", "families", "middles")
        ]
        given = sorted(set.intersection(*sets[:3]))
        self.letters: dict[str, list[str]] = {
            GIVEN: given,
            FAMILY: sorted(sets[3]),
            MIDDLE: sorted(sets[4]),
        }
        if lang == "en":  # a word may be of any part
            self.letters = dict.fromkeys(self.letters, sorted(set.intersection(*sets)))

    def knows(self, key: str) -> bool:
        """Whether a plain word is a name here."""
        return key in self.families or key in self.given

    def sex(self, text: str) -> str:
        """The sex that a given name tells, by its marks where it has them; nothing where it may be
        either."""
        if text.isascii():
            key = text.lower()
            return "female" if key in self.women else "male" if key in self.men else ""
        said = [sex for sex in SEXES if text.lower() in self.marked[sex]]
        return said[0] if len(said) == 1 else ""


SEXES = ("female", "male")
VIETNAMESE = frozenset(
    [
        "nguyen",
        "tran",
        "pham",
        "phan",
        "hoang",
        "huynh",
        "dang",
        "bui",
        "ngo",
        "duong",
        "dinh",
        "trinh",
        "doan",
        "luong",
        "truong",
    ]
)
"""Family names that tell of a Vietnamese name in any language."""


def _by_letter(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        found.setdefault(name[0], []).append(name)
    return found


@cache
def lists(lang: str) -> Lists:
    """The lists of ``vi`` or ``en``."""
    return Lists(lang)


def language_of(value: str, lang: str) -> str:
    """The language that a name is of, whatever the note is written in."""
    if any("\u3400" <= sign < "\ua000" for sign in value):
        return "zh"
    words = [plain(word) for word in WORDS.findall(value)]
    if lang == "vi":
        known = any(lists("vi").knows(word) for word in words)
        shaped = all(len(word) < 2 or SYLLABLE.fullmatch(word) for word in words)
        return "vi" if known or shaped or not value.isascii() else "en"
    return (
        "vi" if not VIETNAMESE.isdisjoint(words) and all(map(SYLLABLE.fullmatch, words)) else "en"
    )


def words_of(value: str, lang: str, told: Told, titled: bool = False) -> list[Word]:
    """The words of a name with their parts. ``lang``: of the name; ``titled``: a title stands
    before it, or it is a clinician's."""
    found: list[tuple[int, int, str]] = []
    for match in WORDS.finditer(value):
        start, word = match.start(), match.group()
        glued = lang == "vi" and word.isalpha() and not word.isupper()
        glued = glued and len(GLUED.findall(word)) > 1
        inner = GLUED.finditer(word) if glued else ()
        found += [(start + one.start(), start + one.end(), one.group()) for one in inner]
        if not glued:
            found.append((start, match.end(), word))
    full = [word for word in found if lang == "vi" or word[2].lower() not in STAYS]
    if len(found) > 1 and lang == "vi" and all(len(word[2]) == 1 for word in full):
        full = found
    parts = _vietnamese(full, told) if lang == "vi" else _english(value, full, told, titled)
    by_place = dict(zip(full, parts, strict=True))
    return [Word(*word, by_place.get(word, KEPT)) for word in found]


def _vietnamese(words: Sequence[tuple[int, int, str]], told: Told) -> list[str]:
    """Family first, given name last; a word that stands alone is a given name."""
    keys = [plain(word) for _, _, word in words]
    if len(keys) > 1 and all(key in told for key in keys):
        return [told[key][0] for key in keys]
    family = bool(keys) and (keys[0] in lists("vi").families or len(keys[0]) == 1)
    if len(keys) == 1:
        return [told.get(keys[0], (GIVEN, ""))[0]]
    last = len(keys) - 1
    if not family and last > 1 and keys[1] in lists("vi").families:  # given name first
        return [GIVEN, FAMILY, *[MIDDLE] * (last - 1)]
    first = FAMILY if family or last > 1 else MIDDLE
    return [first if at == 0 else GIVEN if at == last else MIDDLE for at in range(last + 1)]


def _english(
    value: str, words: Sequence[tuple[int, int, str]], told: Told, titled: bool
) -> list[str]:
    """Given name first, or behind the family name and a comma; words with a hyphen between them are
    one."""
    groups: list[list[tuple[int, int, str]]] = []
    for word in words:
        joined = groups and value[groups[-1][-1][1] : word[0]] in ("-", "\u2010", "\u2011")
        groups[-1].append(word) if joined else groups.append([word])
    if not groups:
        return []
    if len(groups) == 1:
        parts = [_alone(plain(groups[0][0][2]), told, titled)]
    else:
        behind = value[groups[0][-1][1] :].lstrip()[:1]
        last = groups[-1][0][2]
        swapped = behind in (",", "^") or (
            len(last) < 3 and last.isupper() and len(groups[0][0][2]) > len(last)
        )
        between = [MIDDLE] * (len(groups) - 2)
        parts = [FAMILY, GIVEN, *between] if swapped else [GIVEN, *between, FAMILY]
    return [part for group, part in zip(groups, parts, strict=True) for _ in group]


def _alone(key: str, told: Told, titled: bool) -> str:
    """The part of a name that stands alone."""
    if key in told:
        return told[key][0]
    known = lists("en")
    if titled:
        return FAMILY
    return GIVEN if key in known.given or key not in known.families else FAMILY


def split_chinese(name: str) -> tuple[str, str]:
    """(family, given) of a Chinese name without blanks; the family is empty where none is known."""
    known = name_data("zh")
    if name[:2] in known["compound"]:
        return name[:2], name[2:]
    return (name[:1], name[1:]) if name[:1] in known["families"] else ("", name)


def chinese_sex(given: str) -> str:
    """The sex that the signs of a given name tell."""
    own = data()["zh"]
    found = {
        sex for sex, key in zip(SEXES, ("women", "men"), strict=True) if {*given} & {*own[key]}
    }
    return found.pop() if len(found) == 1 else ""


@cache
def _cues(lang: str) -> Any:
    own, found = data()["sexes"][lang], []
    for sex in SEXES:
        words = any_of(own["before"][sex])
        head = "" if lang == "zh" else rf"(?<![{LETTER}])"
        before = re.compile(rf"{head}(?:{words})[.:,]?\s?(?:is|named|tên|là|:|\()?\s?\Z", re.I)
        found.append((sex, before, re.compile("|".join(own["behind"][sex]), re.I)))
    return found


def sex_beside(text: str, start: int, end: int, lang: str) -> str:
    """The sex that the words around a name tell: a title, a relative, an age with it."""
    before, behind = text[max(0, start - 24) : start], text[end : end + 40]
    found = [
        sex
        for sex, cue, tail in _cues(lang if lang in ("vi", "zh") else "en")
        if cue.search(before) or tail.match(behind)
    ]
    return found[0] if len(found) == 1 else ""


TITLE = re.compile(r"(?<![a-z])(?:dr|mr|mrs|ms|miss|prof|doctor|professor)\.?\s\Z", re.I)


def tell(
    names: Iterable[tuple[str, str]], lang: str, known: Told, sure: bool = False
) -> dict[str, tuple[str, str]]:
    """What names with the sex that is said of them ("": none) tell of their words: of a name of
    several words their parts, and the sex of given names. A name that may be of either sex stays
    one whatever a note says, so that it is the same in a note that does not say it; ``sure``: the
    row says it."""
    told = dict(known)
    for value, sex in sorted(names, key=lambda one: -len(one[0])):
        own = language_of(value, lang)
        if own == "zh":
            bare = "".join(sign for sign in value if sign not in NO_SIGN)
            given = split_chinese(bare)[1]
            if given and (sex or len(bare) > len(given)):
                _note(told, given, GIVEN, sex if sure or chinese_sex(given) else "")
            continue
        words = [word for word in words_of(value, own, told) if word.part and len(word.text) > 1]
        thi = own == "vi" and any(word.key == "thi" and word.part == MIDDLE for word in words)
        for word in words:
            said = ""
            if word.part == GIVEN:
                listed = lists(own).sex(word.text)
                said = "female" if thi else sex if sure else listed and (sex or listed)
            if len(words) > 1 or said:
                _note(told, word.key, word.part, said)
    return told


def _note(told: dict[str, tuple[str, str]], key: str, part: str, sex: str) -> None:
    """Take up what a name tells of a word, unless that was told before."""
    before = told.get(key, (part, ""))
    told[key] = (before[0], before[1] or sex)


class Names:
    """The names of one patient's persons. ``taken``: plain words that no surrogate may be; ``row``:
    the names that the patient's row holds, with the sex that it says."""

    def __init__(
        self, secret: bytes, lang: str, taken: frozenset[str], row: Sequence[tuple[str, str]]
    ) -> None:
        self.secret, self.lang, self.taken, self.row = secret, lang, taken, row
        self.made: dict[tuple[str, ...], str] = {}

    @cached_property
    def told(self) -> dict[str, tuple[str, str]]:
        """What the row tells of words of names: the same in all notes."""
        return tell(self.row, self.lang, {}, sure=True)

    def of(self, value: str, told: Told, titled: bool = False, unmarked: bool = False) -> str:
        """A name in the form of another. ``told``: what row and note tell; ``unmarked``: the note
        is written without Vietnamese marks."""
        own = language_of(value, self.lang)
        if own == "zh":
            return self._chinese(value, told)
        if self.lang == "zh" and (spelt := self._spelt(value, told)):
            return spelt
        value = _undressed(value)
        words = words_of(value, own, told, titled)
        bare = own == "vi" and (unmarked or self._bare(value, words))
        made, position = "", 0
        for word in words:
            made += value[position : word.start]
            position = word.end
            new = word.text
            if word.part:
                new = self._written(own, word, value[word.end : word.end + 1], told, len(words) > 1)
            made += _unmarked(new) if bare else new
        return made + value[position:]

    def _bare(self, value: str, words: Sequence[Word]) -> bool:
        """Whether a Vietnamese name is written without the marks that it has."""
        return plain(value) == value.lower() and (
            self.lang != "vi" or any(word.key in _marked(word.part == FAMILY) for word in words)
        )

    def _written(self, own: str, word: Word, behind: str, told: Told, several: bool) -> str:
        text, part = word.text, word.part
        short = len(text) == 1 or (behind == "." and len(text) < 4 and several)
        listed = lists(own).knows(word.key)
        most = 2 if several else 3  # letters of initials without dots
        if short or (1 < len(text) <= most and text.isupper() and not listed):
            letters = text if not short else text[:1]
            new = "".join(self.letter(own, part, sign.upper()) for sign in letters)
            return new.lower() if text.islower() else new
        new = self.word(own, word, told)
        if text.isupper():
            return new.upper()
        return new.lower() if text.islower() else new

    def letter(self, own: str, part: str, letter: str) -> str:
        """The letter with which the surrogates of words with a letter begin."""
        if own == "vi" and part == MIDDLE and letter == "T":
            return "T"  # of Thị, which stays
        key = ("letter", own, part, letter)
        if (made := self.made.get(key)) is None:
            made = self.made[key] = self._letter(own, part, letter)
        return made

    def _letter(self, own: str, part: str, letter: str) -> str:
        letters = lists(own).letters[part]
        slot = part if own == "vi" else "name"
        draw = Draw(self.secret, f"letter/{slot}/{plain(letter)}")
        return draw.choice([one for one in letters if plain(one) != plain(letter)])

    def _pool(self, own: str, part: str, sex: str) -> dict[str, list[str]]:
        known = lists(own)
        if part == FAMILY:
            return known.pools["families"]
        return known.pools["middles" if part == MIDDLE and own == "vi" else sex]

    def word(self, own: str, word: Word, told: Told) -> str:
        """The surrogate of a word of a name by its part."""
        known, key, part, sex = lists(own), word.key, word.part, "both"
        if own == "vi" and part == MIDDLE and key == "thi":
            return "Thị"
        if part == GIVEN or (own == "en" and part == MIDDLE):
            said = self.told.get(key, ("", ""))[1] or told.get(key, ("", ""))[1]
            sex = said or known.sex(word.text) or "both"
        slot, pool = part, self._pool(own, part, sex)
        if own == "en" and sex == "both" and (part != FAMILY or key not in known.families):
            slot, pool = "name", known.pools["both"]  # may be either part elsewhere
        if (made := self.made.get((own, slot, sex, key))) is None:
            names = self._fit(pool.get(self.letter(own, part, key[:1].upper()), ()), key)
            names = names or [name for some in pool.values() for name in some]
            made = self.made[own, slot, sex, key] = self._free(names, f"{own}/{slot}/{sex}", key)
        return made

    def _free(self, names: Sequence[str], what: str, key: str) -> str:
        """One of several that is not the word itself, and no word of the row."""
        return Draw(self.secret, f"person/{what}/{key}").choice(self._fit(names, key) or names)

    def _fit(self, names: Sequence[str], key: str) -> list[str]:
        words = self.words
        return [n for n in names if (low := plain(n)) not in words and low != key]

    @cached_property
    def words(self) -> frozenset[str]:
        """What no word of a surrogate may be: the row's words, and given names in Chinese."""
        chinese = {"".join(key.split()) for key in self.taken if key >= "\u3400"}
        return self.taken | {split_chinese(name)[1] for name in chinese}

    # Chinese

    def _chinese(self, value: str, told: Told) -> str:
        signs = [sign for sign in value if sign not in " 　·・.．-" and sign != "，"]
        bare = "".join(signs)
        known, own = name_data("zh"), data()["zh"]
        if len(bare) == 2 and bare[0] in "小老阿" and bare[1] in known["families"]:
            new = bare[0] + self.family(bare[1])
        elif "·" in value or "・" in value or _of_parts(bare):
            dotted = "·" in value or "・" in value
            pools = own["dotted" if dotted else "parts"]
            pieces = (
                re.split("([·・])", value)
                if dotted
                else [bare[i : i + 2] for i in range(0, len(bare), 2)]
            )
            return "".join(
                piece if piece in "·・" else self._part(piece, pools, told) for piece in pieces
            )
        else:
            family, given = split_chinese(bare)
            hidden = "".join(sign for sign in given if sign in NO_SIGN)
            if bare in told and told[bare][0] == GIVEN:
                family, given, hidden = "", bare, ""
            new = self.family(family) if family else ""
            new += hidden or (self.given(given, told) if given else "")
        if len(new) != len(bare):
            return new
        drawn = iter(new)
        return "".join(
            next(drawn) if sign in signs and sign not in " 　" else sign for sign in value
        )

    def family(self, key: str) -> str:
        """The surrogate of a Chinese family name."""
        made = self._free([*data()["zh"]["families"]], "zh/family", key)
        return (
            made if len(key) == 1 else {"欧": "欧阳"}.get(made, "上官" if key != "上官" else "司徒")
        )

    def given(self, key: str, told: Told) -> str:
        """The surrogate of a Chinese given name, of as many signs."""
        sex = self.told.get(key, ("", ""))[1] or told.get(key, ("", ""))[1] or chinese_sex(key)
        names = data()["zh"][sex or "both"]
        one = [name for name in names if len(name) == 1]
        two = [name for name in names if len(name) == 2]
        if len(key) == 1:
            return self._free(one, f"zh/given/{sex}", key)
        made = self._free(two, f"zh/given/{sex}", key)
        return made + "".join(self._free(one, "zh/more", key[:at]) for at in range(3, len(key) + 1))

    def _part(self, piece: str, pools: Mapping[str, list[str]], told: Told) -> str:
        told_sex = told.get(piece, ("", ""))[1]
        sex = told_sex or next((sex for sex in SEXES if piece in pools[sex]), "both")
        return self._free(pools[sex], f"zh/part/{sex}", piece)

    def _spelt(self, value: str, told: Told) -> str:
        """A name of the row in pinyin (``LIU Yang`` for 刘洋): the pinyin of its surrogate; nothing
        where no name of the row reads so."""
        words = [match.group() for match in WORDS.finditer(value)]
        for name, _ in self.row:
            if language_of(name, "zh") != "zh" or "·" in name:
                continue
            family, given = split_chinese("".join(name.split()))
            new = (self.family(family) if family else "", self.given(given, self.told))
            sounds = {}
            for old, made in zip((family, given), new, strict=True):
                sounds[_pinyin(old)] = _pinyin(made)
                sounds |= {_pinyin(a): _pinyin(b) for a, b in zip(old, made, strict=False)}
            sounds[_pinyin(family + given)] = _pinyin("".join(new))
            if words and all(plain(word) in sounds for word in words):
                return _respelt(value, sounds)
        return ""


@cache
def _marked(families: bool) -> frozenset[str]:
    """Words of Vietnamese names, plain, that never stand without marks."""
    more = ("middles", "more_middles", "male", "female", "women", "men", "both")
    keys = ("families", "more_families") if families else more
    lists_ = (name_data("vi"), data()["vi"])
    named = {name for own in lists_ for key in keys for name in own.get(key, ())}
    marked = {plain(name) for name in named if not name.isascii()}
    return frozenset(marked - {name.lower() for name in named if name.isascii()})


def _pinyin(signs: str) -> str:
    from pypinyin import lazy_pinyin

    return "".join(lazy_pinyin(signs))


def _respelt(value: str, sounds: Mapping[str, str]) -> str:
    return WORDS.sub(lambda found: _cased(sounds[plain(found[0])], found[0]), value)


def _cased(new: str, old: str) -> str:
    return new.upper() if old.isupper() else new if old.islower() else new.capitalize()


@cache
def _elements() -> re.Pattern[str]:
    return re.compile(f"(?:{any_of(name_data('zh')['elements'])}){{1,3}}")


def _of_parts(bare: str) -> bool:
    """Whether a name is made of the parts of Tibetan and other names."""
    return len(bare) % 2 == 0 and _elements().fullmatch(bare) is not None


def _undressed(value: str) -> str:
    """A name of the same length with plain letters for full-width and dressed ones."""
    if value.isascii():
        return value
    return "".join(one if len(one := normalize("NFKC", sign)) == 1 else sign for sign in value)


def _unmarked(text: str) -> str:
    """Without Vietnamese marks, case kept."""
    pairs = zip(text, plain(text), strict=True)
    return "".join(low.upper() if sign.isupper() else low for sign, low in pairs)
