"""Names of people, by the words around them and by lists of names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from residency.deid.find import Finding, Words, plain


@cache
def name_data(lang: str) -> Mapping[str, Any]:
    """Names, cues, stop words and vetoes of a language."""
    import yaml

    found: Mapping[str, Any] = yaml.safe_load((Path(__file__).parent / f"names/{lang}.yaml").read_text("utf-8"))
    return found


class Names:
    """Finds the names of one language in a narrowed text."""

    def __init__(self, lang: str) -> None:
        self.lang = lang
        kinds: dict[str, type[_Vietnamese | _Chinese | _English]] = {"vi": _Vietnamese, "zh": _Chinese, "en": _English}
        self.own = kinds[lang](name_data(lang))

    def find(self, text: str, low: str) -> Iterator[Finding]:
        """Findings of kinds name, relative and clinician in a text and its small letters."""
        if self.lang == "zh" and text.isascii():
            return iter(())
        return self.own.find(text, low)


def _any(words: list[str]) -> str:
    import regex

    return "|".join(regex.escape(word) for word in sorted(words, key=len, reverse=True))


class _Vietnamese:
    """Capitalised words behind a cue, or that begin with a family name; families, stops and vetoes are compared without marks."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        import regex

        self.marked = {name.lower() for name in data["families"]}
        self.calls = {name.lower() for name in [*data["male"], *data["female"], *data["middles"]]}
        self.families = {plain(name) for name in data["families"]}
        self.given = {plain(name) for name in [*data["male"], *data["female"], *data["middles"]]}
        self.middles = {plain(name) for name in data["middles"]}
        self.ends = {word.lower() for word in data["stops"]}
        self.stops = {plain(word) for word in data["stops"]}
        self.vetoes = {tuple(plain(words).split()) for words in data["vetoes"]}
        word = r"\p{Lu}[\p{L}\p{M}]*"
        self.run = regex.compile(rf"(?<![\p{{L}}\d]){word}(?:[ \t]{{1,2}}{word}){{1,7}}(?![\p{{L}}])")
        between = r"(?:\s*\([^)\n]{1,20}\)|\s+(?i:nam|nữ|bé|con|ông|bà|anh|chị|cô|chú|bác|cụ|cháu|em|là|tên|số|nhi|bs|bác sĩ|ths|ts|ckii?|ck[12])(?!\w))*"
        title = r"(?:(?i:ông|bà|anh|chị|em|cháu|bé|cụ|cô|chú|bác|bs|bác sĩ|bs\.?ckii?|ths|ts|đd)(?!\w)\.?\s*)*"
        initial = r"\p{Lu}\.\s?"
        name = rf"(?:(?:{initial}){{0,3}}{word}|(?:{initial}){{2,4}})(?:[ \t]{{1,2}}(?:{word}|{initial})){{0,5}}(?![\p{{L}}])"
        self.behind = regex.compile(rf"{between}\s*[.:：\-]*\s*{title}(?P<v>{name})".replace(r"\s", "[ \t]"))
        self.kinds = {cue: kind for kind in ("name", "relative", "clinician") for cue in data["cues"][kind]}
        self.words = Words(self.kinds)
        self.lower = regex.compile(r"\s*[.:]?\s*(?P<v>\p{Ll}+(?:[ \t]\p{Ll}+){1,4})")

    def find(self, text: str, low: str) -> Iterator[Finding]:
        for start, end in self.words.find(low):
            cue = low[start:end]
            kind = self.kinds[cue]
            if match := self.behind.match(text, end):
                found = self._cued(match.group("v"), match.start("v"), cue)
                if found:
                    yield Finding(found[0], found[1], kind, "rule:vi/name-cue")
            if kind == "name" and (match := self.lower.match(text, end)):
                words = match.group("v").split(" ")
                folded = [plain(word) for word in words]
                if folded[0] in self.families and folded[1] in self.middles and len(words) > 2:
                    count = 4 if len(words) > 3 and folded[3] in self.given and folded[3] not in self.stops else 3
                    at = match.start("v")
                    yield Finding(at, at + len(" ".join(words[:count])), "name", "rule:vi/name-small")
        for match in self.run.finditer(text):
            yield from self._listed(match.group(), match.start())

    def _is_stop(self, word: str) -> bool:
        """Whether a word cannot be of a name; one with marks must have the right ones (Lan is not lần)."""
        low = word.lower()
        return low in self.ends or (low.isascii() and low in self.stops and low not in self.calls)

    def _is_family(self, word: str) -> bool:
        """Whether a word is a family name; one with marks must have the right ones."""
        return word.lower() in self.marked or (word.isascii() and word.lower() in self.families)

    def _cued(self, found: str, start: int, cue: str) -> tuple[int, int] | None:
        """The words up to the first that ends a name."""
        end = 0
        taken = 0
        folded: list[str] = []
        for word, at in _words(found):
            key = plain(word).strip(".")
            if (
                self._is_stop(word.strip("."))
                and not (taken and key in self.given and word[0].isupper() and not word.isupper())
            ) and not word.endswith("."):
                break
            if taken and word.isupper() and len(word) > 1 and not found[:end].isupper() and not word.endswith("."):
                break  # an abbreviation behind a name
            folded.append(key)
            end, taken = at + len(word), taken + 1
            if taken == 5:
                break
        if not taken or tuple(folded[:2]) in self.vetoes or (folded[0],) in self.vetoes:
            return None
        word = found[:end].strip()
        if taken == 1 and "." not in word and not (cue in ASKING and len(word) > 1):
            plainly = cue in ADDRESSING and len(word) > 1 and not word.isupper()
            if (
                not plainly
                and word.lower() not in self.calls
                and not (word.isascii() and folded[0] in self.given and not word.isupper())
            ):
                return None
        elif (
            taken > 1
            and cue not in ASKING
            and not self._is_family(word.split()[0])
            and not any(w.lower() in self.calls for w in word.split())
        ):
            return None
        return start, start + end

    def _listed(self, found: str, start: int) -> Iterator[Finding]:
        words = list(_words(found))
        folded = [plain(word) for word, _ in words]
        position = 0
        while position < len(words) - 1:
            if self._is_family(words[position][0]) and tuple(folded[position : position + 2]) not in self.vetoes:
                last = position + 1
                while (
                    last < len(words)
                    and last - position < 5
                    and not (self._is_stop(words[last][0]) and folded[last] not in self.given)
                ):
                    last += 1
                shout = words[position][0].isupper() and len(words[position][0]) > 1
                taken = last - position
                sure = not shout or any(word in self.given for word in folded[position + 1 : last])
                if taken >= 2 and sure and not (shout and taken == 2 and folded[position + 1] not in self.given):
                    end = words[last - 1][1] + len(words[last - 1][0])
                    yield Finding(start + words[position][1], start + end, "name", "rule:vi/name-list")
                    position = last
                    continue
            position += 1


ASKING = frozenset(
    [
        "họ và tên",
        "họ tên",
        "ho ten",
        "tên là",
        "họ và tên người bệnh",
        "họ và tên bệnh nhân",
        "họ tên bn",
        "họ tên bệnh nhân",
        "họ tên người bệnh",
        "tên bệnh nhân",
        "tên người bệnh",
        "tên bn",
    ]
)
"""Cues behind which whatever is capitalised is a name."""
ADDRESSING = frozenset(
    ["ông", "bà", "anh", "chị", "cháu", "bé", "cụ", "cô", "chú", "bác", "em", "dì", "cậu", "mợ", "thím"]
)
"""Words of address: one capitalised word behind them is a name, an abbreviation is not."""


def _words(found: str) -> Iterator[tuple[str, int]]:
    position = 0
    for word in found.split(" "):
        if word:
            yield word.strip("\t"), position
        position += len(word) + 1


class _Chinese:
    """A family name and one or two signs behind a cue or before a title; glued to the text around it."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        import regex

        family = f"(?:{_any(data['compound'])}|[{data['families']}])"
        veto = _any(data["vetoes"])
        name = rf"(?!(?:{veto}))(?P<v>{family}(?:\p{{Han}}|\s(?=\p{{Han}}(?![\p{{Han}}]))\p{{Han}}){{1,2}}(?:·\p{{Han}}{{1,6}})?|{family}[某xX*]{{1,2}})"
        end = r"(?=[^\p{Han}]|$|男|女|代|陪|诉|于|主|电|签|医|护|述|说|和|与|及|因|的|副|教|先|之|送|在|为|系|既|自|入|已|今|现|曾|要|拒|同|意|情|病|神|一|无|术|经|血|体|突|发|反|出|住|交|沟|讲|谈|解|告|了|来|到|称|提)"
        self.cues = [
            (regex.compile(rf"(?:{_any(data['cues'][kind])})(?:姓名)?(?:\s*[:：为是叫]\s*|\s*)[“\"]?{name}{end}"), kind)
            for kind in ("name", "relative", "clinician")
        ]
        title = _any(data["titles"])
        self.title = regex.compile(rf"(?:{title})(?!科|室|台)")
        self.before_title = regex.compile(rf"(?<![主责住值管])(?!(?:{veto}))(?P<v>{family}\p{{Han}}{{0,2}})\Z")
        self.sex = regex.compile(r"\s*[，,、；;（(/|]\s*(?:性别)?[:：]?\s*(?:男|女)")
        self.before_sex = regex.compile(rf"(?<![\p{{Han}}])(?!(?:{veto}))(?P<v>{family}\p{{Han}}{{1,2}})\Z")
        self.leads = tuple("由经请与向找遵嘱和及同跟、，。；：（( \n\t")
        self.cue_words = tuple({word for kind in data["cues"].values() for word in kind})

    def find(self, text: str, low: str) -> Iterator[Finding]:
        for pattern, kind in self.cues:
            for match in pattern.finditer(text):
                yield Finding(match.start("v"), match.end("v"), kind, "rule:zh/name-cue")
        for match in self.title.finditer(text):
            at = match.start()
            for length in (1, 2, 3, 4):
                found = self.before_title.match(text, at - length, at) if at >= length else None
                if found and (length == 1 or self._stands_alone(text, at - length)):
                    yield Finding(at - length, at, "clinician", "rule:zh/name-title")
        for match in self.sex.finditer(text):
            at = match.start()
            for length in (2, 3, 4):
                if at >= length and self.before_sex.match(text, at - length, at):
                    yield Finding(at - length, at, "name", "rule:zh/name-sex")

    def _stands_alone(self, text: str, start: int) -> bool:
        """Whether a name of several signs begins here: behind a sign, or a word that leads to a name."""
        return (
            start == 0
            or text[start - 1] in self.leads
            or not text[start - 1].isalpha()
            or text[:start].endswith(self.cue_words)
        )


STRONG = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "miss",
        "mx",
        "dr",
        "prof",
        "professor",
        "patient name",
        "name of patient",
        "pt name",
        "full name",
        "last name",
        "first name",
        "surname",
        "given name",
        "name",
        "next of kin",
        "nok",
        "emergency contact",
        "guardian",
        "electronically signed by",
        "signed by",
        "dictated by",
        "cosigned by",
    ]
)
"""Cues behind which a capitalised word is a name whatever it is."""


class _English:
    """Capitalised words behind a cue, before a degree, or that begin with a given name."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        import regex

        self.given = {name.lower() for name in [*data["male"], *data["female"]]}
        self.families = {name.lower() for name in data["families"]}
        self.ambiguous = set(data["ambiguous"])
        self.stops, self.vetoes = set(data["stops"]), set(data["vetoes"])
        word = r"(?:\p{Lu}[\p{Ll}'’]+(?:[\-’']\p{Lu}?\p{Ll}+)?|\p{Lu}['’]\p{Lu}\p{Ll}+|Mc\p{Lu}\p{Ll}+|\p{Lu}{2,})"
        part = rf"(?:{word}|\p{{Lu}}\.?(?![\p{{L}}\d]))"
        comma = rf"{word},\s?{part}(?:\s{part}){{0,2}}|{part}(?:\s{part}){{0,3}}"
        title = r"(?:(?i:mr|mrs|ms|miss|dr|prof)\b\.?\s*)?"
        self.behind = regex.compile(
            rf"(?:\s*\([^)\n]{{1,20}}\))?(?:\s+(?i:is|was|named|called|name)(?!\w))?\s*[.:,#\-]?\s*{title}(?P<v>{comma})(?![\p{{Ll}}\d])".replace(
                r"\s", "[ \t]"
            )
        )
        self.kinds = {cue: kind for kind in ("name", "relative", "clinician") for cue in data["cues"][kind]}
        self.words = Words(self.kinds)
        degree = _any(data["suffixes"])
        self.degreed = regex.compile(rf"(?<![\p{{L}}])(?P<v>{part}(?:\s{part}){{0,3}}),?\s(?:{degree})(?![\p{{L}}])")
        self.run = regex.compile(rf"(?<![\p{{L}}\d]){word}(?:\s(?:\p{{Lu}}\.?\s)?{word}){{1,2}}(?![\p{{L}}])")
        self.swapped = regex.compile(rf"(?<![\p{{L}}\d])(?P<v>{word},\s{word}(?:\s\p{{Lu}}\.?)?)(?![\p{{L}}])")

    def find(self, text: str, low: str) -> Iterator[Finding]:
        for start, end in self.words.find(low):
            if match := self.behind.match(text, end):
                found = self._cued(match.group("v"))
                if text[start:end].isupper() and end - start < 3 and not match.group("v").isupper():
                    continue  # MS is multiple sclerosis, PT physiotherapy
                sure = found and self._is_name(match.group("v")[:found], low[start:end])
                if sure:
                    at = match.start("v")
                    yield Finding(at, at + found, self.kinds[low[start:end]], "rule:en/name-cue")
        for match in self.degreed.finditer(text):
            words = match.group("v").split()
            if not all(self._plain(word) for word in words):
                words_kept = []
                for word in reversed(words):
                    if self._plain(word):
                        break
                    words_kept.append(word)
                if not words_kept:
                    continue
                start = match.end("v") - len(" ".join(words_kept))
                yield Finding(start, match.end("v"), "clinician", "rule:en/name-degree")
        for match in self.run.finditer(text):
            yield from self._listed(match.group(), match.start())
        for match in self.swapped.finditer(text):
            family, given = (part.strip().lower() for part in match.group("v").split(",", 1))
            if given.split()[0] in self.given and family in self.families:
                yield Finding(match.start("v"), match.end("v"), "name", "rule:en/name-list")

    def _is_name(self, found: str, cue: str) -> bool:
        """Whether words behind a cue are a name: behind a weak one (``son``, ``patient``, ``per``) at least one must be known as such."""
        if cue in STRONG:
            return True
        keys = [word.strip(".,").lower() for word in found.split()]
        known = any(key in self.given or key in self.families for key in keys)
        return known or (len(keys) > 1 and not found.isupper() and not any(key in self.vetoes for key in keys))

    def _plain(self, word: str) -> bool:
        return word.lower().strip(".,'’") in self.stops and not (
            len(word) == 2 and word[0].isupper() and word[1] == "."
        )

    def _cued(self, found: str) -> int:
        """Length of the words up to the first that ends a name; 0 where there is none."""
        end = position = taken = 0
        for word in found.replace("\n", " ").split(" "):
            if "\n" in found[end : position + len(word)] and taken:
                break
            if self._plain(word) or (taken == 0 and word.lower().strip(",.") in self.vetoes):
                break
            if word:
                end, taken = position + len(word.rstrip(",")), taken + 1
            position += len(word) + 1
        return 0 if taken == 1 and len(found[:end].strip(". ")) < 2 else end

    def _listed(self, found: str, start: int) -> Iterator[Finding]:
        words = found.split()
        for index, word in enumerate(words[:-1]):
            key, last = word.lower(), words[-1].lower()
            if (
                key in self.given
                and not self._plain(words[index + 1])
                and (last not in self.vetoes or (last in self.families and key not in self.ambiguous))
                and not self._plain(words[-1])
            ):
                if key in self.ambiguous and last not in self.families:
                    continue
                at = found.index(word)
                yield Finding(start + at, start + len(found), "name", "rule:en/name-list")
                return
