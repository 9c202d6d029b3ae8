"""Which labels hold and which are denied in an answer in words, with the scope of each word.

An answer becomes a row of signs (labels, words that affirm or deny, commas, contrasts); a word that
denies reaches over the labels that follow it, or those that it follows, up to a contrast.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from residency.tasks.answer_repair import Names, fold, pattern_of

YES, NO, UNSURE, DROPPED, PAST = "yes", "no", "unsure", "dropped", "past"
LANGUAGES = ("en", "vi", "zh")
KINDS = (
    "word",
    "generic",
    "past",
    "hedge",
    "only_not",
    "except",
    "but",
    "no",
    "yes",
    "or",
    "and",
    "all",
    "amount",
    "subject",
)
"""Kinds of words; of two that begin together and are equally long the first counts."""
CELL = r"(?=\s*(?:[|,;.]|\n|\Z))"
"""What ends a cell of a table, or a word behind a colon."""
SIGNS = (
    ("end", r"\n|[!。;]|\.(?!\d)|\.(?=\d+[.)]\s)"),
    ("asked", r"\?"),
    ("colon", r"[:=|]|->|→|\t"),
    ("dash", r"(?<=\s)[-–—](?=\s)|—"),
    ("open", r"\((?![+-]\))"),
    ("comma", r","),
    ("yes", rf"\[\s?x\s?\]|[✓✔☑√✅]|\(\+\)|(?<=[:=|])\s*1(?!\d|[.,]\d)|(?<=[:=|])\s*[yđt]{CELL}"),
    ("no", rf"\[\s?\]|[✗✘❌×☐❎✖✕]|\([-−–]\)|(?<=[:=|])\s*0(?!\d|[.,]\d)|(?<=[:=|])\s*[nsf]{CELL}"),
    ("hedge", rf"(?<=[:=|])\s*[a-z]{CELL}"),
)
STOPS = frozenset({"comma", "end", "but", "or", "and", "asked", "dash", "colon", "open"})


class Sign(NamedTuple):
    """A word or sign of an answer that matters."""

    kind: str
    text: str
    start: int
    end: int
    name: str = ""
    """The label, of a sign that names one."""


class Mention:
    """A label that was named, and what is said of it."""

    def __init__(self, name: str, says: str, own: bool, part: int, listed: bool) -> None:
        self.name, self.says, self.own = name, says, own
        self.part = part
        """Which piece between commas it stands in."""
        self.listed = listed
        """Whether it is denied only by a word before a comma."""


def chosen(language: str) -> tuple[str, ...]:
    """The languages whose words are known for one that is stated."""
    code = language.split("-")[0]
    return (
        tuple(one for one in LANGUAGES if one in ("en", code)) if code in LANGUAGES else LANGUAGES
    )


@cache
def lexicon() -> dict[str, dict[str, str]]:
    """Kind of word -> language -> pattern, as ``statements.yaml`` has them."""
    import yaml

    text = Path(__file__).with_name("statements.yaml").read_text("utf-8")
    found: dict[str, dict[str, str]] = yaml.safe_load(text)
    return found


@cache
def word(kind: str, languages: tuple[str, ...] = LANGUAGES) -> re.Pattern[str]:
    """The pattern of a kind of word."""
    said = {lang: fold(lexicon()[kind][lang].replace("\n", "")) for lang in languages}
    pieces = [
        f"(?:{words})" if lang == "zh" else rf"(?<!\w)(?:{words})(?!\w)"
        for lang, words in said.items()
    ]
    return re.compile("|".join(pieces))


def states(words: str, names: Names, multiple: bool, language: str) -> dict[str, bool] | None:
    """Whether each label that the words name holds: ``{}`` where they say that none does; ``None``
    where they name none or it is not certain."""
    languages = chosen(language)
    text = (
        re.sub(r"[*_`#]{1,3}(?=\S)|(?<=\S)[*_`]{1,3}", "", fold(words))
        .replace("’", "'")
        .replace("\ufe0f", "")
    )
    text = re.sub(r"(?m)^\s*(?:[-*•·]|\d{1,2}[.)](?!\d))\s+", "", text)
    text = without_earlier(without_echo(text, languages), languages)
    pieces = _committed(text, multiple, languages)
    if not multiple and (reason := word("reason", languages).search(text)) is not None:
        behind = signs(text[reason.end() :], names, languages)
        if not any(one.kind == "label" for one in behind):
            pieces = [text[: reason.start()], *pieces]
    for piece in pieces:
        row = signs(piece, names, languages)
        mentions = _mentions(piece, row, multiple)
        found = _resolved(mentions, multiple)
        if found and multiple and _only_told(piece, row, languages, mentions):
            return None
        if found is not None:
            return found
        others = all(one.says == DROPPED for one in mentions)
        if multiple and others and nothing(piece, languages, apart=bool(mentions)):
            return {}
    return None


def without_earlier(text: str, languages: tuple[str, ...]) -> str:
    """An answer without brackets that tell what was said before."""
    told = word("earlier", languages)
    return re.sub(r"\([^()]{0,200}\)", lambda one: " " if told.search(one[0]) else one[0], text)


def without_echo(text: str, languages: tuple[str, ...]) -> str:
    """An answer without the sentences that repeat the question, where others are left."""
    pieces = re.split(r"(?<=[。!?\n])|(?<=\.)(?=\s)", text)
    return "".join(
        one for one in pieces if not word("echo", languages).search(one.casefold()[:200])
    )


def nothing(text: str, languages: tuple[str, ...] = LANGUAGES, apart: bool = False) -> bool:
    """Whether folded words say that no label holds; ``apart``: beside what they say of others."""
    if word("hedge", languages).search(text):
        return False
    bare = text.strip(" \t\r\n\"'`“”‘’.。,，;；:!！*-")
    pieces = [one for one in re.split(r"[,.。;\n]\s*", bare) if one.strip()]
    pieces = [one for one in pieces if not (apart and word("generic", languages).search(one))]
    return bool(pieces) and all(word("nothing", languages).fullmatch(one.strip()) for one in pieces)


def _committed(text: str, multiple: bool, languages: tuple[str, ...]) -> list[str]:
    """What is to be read, best first: behind the last word that takes back what was said, behind
    the last that announces the answer, or the whole."""
    pieces = []
    taken_back = [one.end() for one in word("revision", languages).finditer(text)]
    if taken_back:
        text = text[taken_back[-1] :].lstrip(" :,.-—")
        text = re.sub(r"^(?:no|actually|không|không phải|不|不是)\s*[,:.]\s*", "", text)
    cues = list(word("commit", languages).finditer(text))
    if not multiple and len(cues) > 1 and cues[-1][0] == cues[-2][0]:
        cues = []  # "the label is benign and the label is malignant"
    for cue in reversed(cues):
        rest = text[cue.end() :].lstrip(" :")
        reason = re.search(rf"(?:\n|[.。;]\s*)(?:{word('reason', languages).pattern})\s*[:,]", rest)
        rest = rest[: reason.start()] if reason else rest
        denied = re.search(
            r"(?:不|非|无法|不能|难以|n't |not |không |không thể |chưa thể )$", text[: cue.start()]
        )
        if rest.strip() and not denied:
            short = re.split(rf"(?:{word('reason', languages).pattern})", rest, maxsplit=1)[0]
            rest = short if short.strip(" ,(") and not multiple else rest
            first = re.split(r"\n|[.。;](?=\s|$)|[。;]", rest, maxsplit=1)[0]
            pieces += [rest] if multiple else [first, rest]
            break
    return [*pieces, text]


def signs(text: str, names: Names, languages: tuple[str, ...]) -> list[Sign]:
    """The signs of folded words in their order; labels first, the longest first."""
    taken, found = text, []
    for key in sorted(names.folded, key=len, reverse=True):
        name = names.folded[key]
        for match in pattern_of(key).finditer(taken):
            found.append(Sign("label", match[0], match.start(), match.end(), name or ""))
            taken = taken[: match.start()] + "\x00" * len(match[0]) + taken[match.end() :]
    words = [
        Sign(kind, match[0], match.start(), match.end())
        for kind in KINDS
        for match in word(kind, languages).finditer(taken)
    ]
    words += [
        Sign(kind, match[0].strip(), match.start(), match.end())
        for kind, pattern in SIGNS
        for match in re.finditer(pattern, taken)
    ]
    words.sort(key=lambda one: (one.start, -(one.end - one.start)))
    last = 0
    for one in words:
        if one.start >= last and one.end > one.start:
            found.append(one)
            last = one.end
    return sorted((one for one in found if one.kind != "word"), key=lambda one: one.start)


ONLY = frozenset({"only", "chỉ", "仅", "仅有", "仅见", "只有", "只是", "只见"})
TOLD = 1
"""Words of a sentence that no kind knows, above which it may tell of anything: "the risk of stroke
is increased in atrial fibrillation"."""
TOLD_TOO = 3
"""The same of a sentence with a word that affirms: "what is given for asthma is a spray"."""


def _only_told(
    text: str, row: Sequence[Sign], languages: tuple[str, ...], mentions: Sequence[Mention]
) -> bool:
    """Whether a label is held by a sentence that may be about something else: one with more than
    the label, what affirms it and what is known to stand beside labels (``beside``)."""
    left, start = iter(mentions), 0
    for end in [*(n for n, one in enumerate(row) if one.kind == "end"), len(row)]:
        sentence, start = row[start:end], end + 1
        says = {next(left).says for one in sentence if one.kind == "label"}
        if YES not in says:
            continue
        kinds = {one.kind for one in sentence if one.kind != "but" or one.text.strip() in ONLY}
        if kinds & {"colon", "only_not", "all", "except", "but"}:
            continue
        first = row[start - len(sentence) - 2].end if start > len(sentence) + 1 else 0
        last = row[end].start if end < len(row) else len(text)
        headed = sentence[0].kind == "label" and not text[first : sentence[0].start].strip()
        if headed and [one.kind for one in sentence[1:2]] in (["comma"], ["open"]):
            continue  # "asthma, well controlled"
        if _unknown(text[first:last], sentence, first, languages) > (
            TOLD_TOO if YES in kinds else TOLD
        ):
            return True
    return False


def _unknown(text: str, row: Sequence[Sign], start: int, languages: tuple[str, ...]) -> float:
    """How many words of a sentence no kind knows; two Chinese characters are about a word."""
    for one in reversed(row):
        text = text[: one.start - start] + "\n" + text[one.end - start :]
    text = word("beside", languages).sub(" ", text)
    words = re.findall(r"[一-鿿]|[^\W\d_一-鿿]+", text)
    return sum(0.55 if "一" <= one <= "鿿" else 1 for one in words)


def _resolved(mentions: Sequence[Mention], multiple: bool) -> dict[str, bool] | None:
    """Whether each label holds; ``None`` where none is named or it is not certain."""
    said: dict[str, set[str]] = {}
    for one in mentions:
        if one.says != DROPPED:
            said.setdefault(one.name, set()).add(one.says)
    if not said:
        return None
    if multiple:
        if any(len(each) > 1 or UNSURE in each for each in said.values()):
            return None
        return {name: YES in each for name, each in said.items()}
    held = [name for name, each in said.items() if YES in each]
    if len(held) != 1 or len(said[held[0]]) > 1:
        return None
    return {name: name == held[0] for name in said}


def _mentions(text: str, row: list[Sign], multiple: bool) -> list[Mention]:
    reader = _Reader(text, row, multiple)
    for place in range(len(row)):
        reader.take(place)
    goes_on = word("now").search(text) is not None
    for one in reader.found:
        if one.says == PAST:
            one.says = DROPPED if goes_on else UNSURE
    return reader.found


class _Reader:
    """Goes through the signs once; holds what is open: the word whose scope reaches on, and the
    labels that a word behind them may still speak of."""

    def __init__(self, text: str, row: list[Sign], multiple: bool) -> None:
        self.text, self.row, self.multiple = text, row, multiple
        self.place = 0
        self.found: list[Mention] = []
        self.scope = ""
        self.scope_labels = 0
        """Labels since the word that opened the scope."""
        self.listed = False
        """Whether a comma stands between that word and here."""
        self.header = ""
        """Scope of a line such as ``Absent:``, for the lines below."""
        self.group: list[Mention] = []
        self.part = 0
        self.hedged: set[int] = set()
        self.apart: set[int] = set()
        """Pieces that are not about this patient."""
        self.past: set[int] = set()
        """Pieces that tell of another day."""
        self.another = False
        """Whether a person with a colon began a list: "Mother: hypertension, obesity"."""
        self.denied = False
        """Whether the sentence held a word that denies."""
        self.labelled = ""
        """``label`` where the sign before is a colon behind a label, ``question`` behind one."""

    def take(self, place: int) -> None:
        """The next sign."""
        self.place, sign = place, self.row[place]
        labelled, self.labelled = self.labelled, ""
        if sign.kind == "label":
            self._label(place)
        elif sign.kind in (YES, NO):
            self._word(place, labelled)
        elif sign.kind == "hedge" and self._header_denies(place):
            self.row[place] = sign._replace(kind=NO)
            self._word(place, labelled)
        elif sign.kind == "hedge" and not self._outcome(place):
            self._hedge(labelled)
        elif sign.kind in ("generic", "past"):
            self._elsewhere(place)
        elif sign.kind in ("colon", "open", "dash"):
            self._colon(place)
        elif sign.kind == "asked":
            self._asked(place)
        elif sign.kind == "comma":
            self.part += 1
            self.listed = True
            if self.another:
                self.apart.add(self.part)
            if self.scope == "except":
                self.scope = ""
        elif sign.kind == "but":
            self._close()
            if sign.text.endswith(("có", "有", "见", "there is", "there are")):
                self.scope, self.scope_labels = YES, 0
        elif sign.kind == "subject" and place and self.row[place - 1].kind == "comma":
            self._close()
        elif sign.kind == "end":
            self._end(place)
        elif sign.kind == "except":
            self._except(place)
        elif sign.kind == "only_not":
            self.scope, self.listed, self.scope_labels = YES, False, 0
        elif sign.kind == "or" and self.scope != NO and self._beside_label(place):
            self.hedged.add(self.part)
            for one in self.found:
                if one.part == self.part and one.says == YES:
                    one.says = UNSURE

    def _outcome(self, place: int) -> bool:
        """Whether the sentence says what came of the test that a word announces."""
        rest = (
            self._sentence(place) if re.match(r"screen|test|tầm|筛", self.row[place].text) else []
        )
        return any(re.match(r"negative|positive|âm|dương|阴性|阳性", one.text) for one in rest)

    def _header_denies(self, place: int) -> bool:
        """Whether "not reported" and the like announce a list."""
        after = self.row[place + 1 : place + 2]
        return bool(after) and after[0].kind == "colon" and self.row[place].text[:2] in ("no", "kh")

    def _elsewhere(self, place: int) -> None:
        """A word that tells of another person, of the world, or of another day."""
        now = self.row[place].kind == "generic"
        (self.apart if now else self.past).add(self.part)
        after = self.row[place + 1].kind if place + 1 < len(self.row) else ""
        self.another = now and after == "colon"
        for one in self.found:
            if one.part == self.part or (now and one in self.group):
                one.says = DROPPED if now else PAST

    def _beside_label(self, place: int) -> bool:
        near = self.row[max(0, place - 1) : place] + self.row[place + 1 : place + 2]
        return any(one.kind == "label" for one in near)

    def _close(self) -> None:
        self.scope, self.listed, self.group, self.scope_labels = "", False, [], 0
        self.another = False
        self.part += 1

    def _end(self, place: int) -> None:
        sign = self.row[place]
        before = self.row[place - 1].kind if place else ""
        if sign.text == "" and before == "colon" and self.scope in (YES, NO):
            self.header = self.scope
        elif before == "end" and sign.text == "":
            self.header = ""
        self._close()
        self.denied = False
        if self.header:
            self.scope = self.header

    def _hedge(self, labelled: str) -> None:
        targets = self.group[-1:] if labelled else []
        if not labelled:
            self.hedged.add(self.part)
            targets = [one for one in self.found if one.part == self.part]
        for one in targets:
            one.says = UNSURE

    def _colon(self, place: int) -> None:
        before = self.row[place - 1] if place else None
        glued = before and self.row[place].kind == "colon"
        after = self.row[place + 1].kind if place + 1 < len(self.row) else ""
        beside = self.scope == NO or self.part in self.apart | self.hedged | self.past
        apart = self.row[place].text == ":" or (not glued and not self.multiple)
        if before and before.kind == after == "label" and beside and apart:
            self._close()  # "neither benign nor malignant: borderline"
            return
        if before and before.kind == "label" and self.group:
            self.labelled = "label" if glued else "dash"
        elif self.row[place].kind == "dash":
            self.part += 1
            self.listed = True
        elif before and before.kind in (YES, NO) and self.scope == before.kind and not self.group:
            self.header = ""
            self.scope, self.scope_labels, self.listed = before.kind, 0, False

    def _asked(self, place: int) -> None:
        after = self.row[place + 1].kind if place + 1 < len(self.row) else ""
        asked = [one for one in self.group if not one.own] or self.group
        if asked and after in (YES, NO):
            self.labelled = "question"
            return
        for one in asked:
            one.says = UNSURE
        self._close()

    def _except(self, place: int) -> None:
        rest = self._sentence(place)
        ahead = self.text[self.row[place].end : rest[-1].end if rest else None]
        if self.denied or re.search(r"\balso\b|\bcòn có\b|\bcòn\b|还|也有", ahead):
            self.scope, self.listed, self.scope_labels = YES, False, 0
            self.group, self.part = [], self.part + 1
        elif (
            NO in [one.kind for one in rest]
            or any("外" in one.text for one in rest)
            or self.row[place].text.startswith("除")
        ):
            self.scope, self.scope_labels = "except", 0
        else:
            self.hedged.add(self.part)

    def _sentence(self, place: int) -> list[Sign]:
        rest = []
        for one in self.row[place + 1 :]:
            if one.kind == "end":
                break
            rest.append(one)
        return rest

    def _label(self, place: int) -> None:
        sign = self.row[place]
        says, own, listed = YES, False, False
        if self.scope == NO:
            says, listed = self._within(place)
            own = not self.listed
            if says == YES:
                self.scope, own = "", True
        elif self.scope in (YES, "except"):
            own = self.scope_labels == 0
        if self.part in self.hedged:
            says = UNSURE
        if self.part in self.apart:
            says = DROPPED
        elif self.part in self.past:
            says = PAST
        self.scope_labels += 1
        made = Mention(sign.name, says, own, self.part, listed)
        self.found.append(made)
        self.group.append(made)

    def _within(self, place: int) -> tuple[str, bool]:
        """What the scope of a word that denies makes of a label, and whether only across a
        comma."""
        before = [one.kind for one in self.row[:place]]
        since = next(
            (n for n, kind in enumerate(reversed(before)) if kind in ("comma", "and", NO, "label")),
            0,
        )
        near = self.row[place - since - 1 : place]
        amount = any(one.kind == "amount" for one in near)
        joined = near[0].kind == "and" if near else False
        closes = self._list_closes(place)
        if joined and not self.listed:
            plain = near[0].text != "、"
            return (YES, False) if amount and plain and near[0].text == "and" else (NO, False)
        if not self.listed or "or" in [one.kind for one in self.row[place - since - 2 : place]]:
            return NO, False
        if not self.multiple and not closes and not joined:
            return YES, True  # "not benign, malignant": only one can hold
        chinese = not self.row[place].text.isascii() and ord(self.row[place].text[0]) > 0x2E80
        last = max((one.end for one in self.row[:place]), default=0)
        if re.search(r"\b(?:is|are|was|were|the|là)\b", self.text[last : self.row[place].start]):
            return YES, True
        if amount:
            return (UNSURE, True) if closes == "or" else (YES, True)
        if not self.scope_labels:
            return (NO, True) if closes else (UNSURE, True)
        if chinese and not closes and not joined:
            return UNSURE, True
        return NO, True

    def _list_closes(self, place: int) -> str:
        """``or``/``and`` where the list that a label stands in is closed by one."""
        for one in self.row[place + 1 :]:
            if one.kind in ("or", "and"):
                return one.kind
            if one.kind not in ("label", "comma", "amount"):
                break
        for one in reversed(self.row[:place]):
            if one.kind in ("or", "and"):
                return one.kind
            if one.kind not in ("label", "comma", "amount"):
                break
        return ""

    def _word(self, place: int, labelled: str) -> None:
        """A word that affirms or denies."""
        sign = self.row[place]
        if self.scope == "except" and sign.kind == NO:
            self._close()  # "but for an effusion there is nothing": the effusion is there
        before = self.row[place - 1] if place else None
        if labelled and before and re.search(r"\w", self.text[before.end : sign.start]):
            labelled, self.group = "", []  # "severe: she cannot speak"
        if sign.kind == NO:
            self.denied = True
        following = self.row[place + 1] if place + 1 < len(self.row) else None
        if sign.kind == YES and self.group and following and following.kind == NO:
            between = self.text[sign.end : following.start]
            if not re.search(r"\w", between) or self._follows(place + 1):
                return  # "is not", "是错的", "noted last month is no longer there"
        if before and before.kind in (YES, NO) and not labelled:
            if before.kind == NO and sign.kind == YES:
                if self._follows(place) and self.group:
                    self._behind(NO, "")
                return
            if before.kind == NO and sign.kind == NO and sign.text not in ("no", "nor"):
                self._hedge("")
        after = self.row[place + 1].kind if place + 1 < len(self.row) else "end"
        if after == "asked" and self.group and sign.kind == NO and not labelled:
            return  # the particle of a question: "có ... không?"
        if after == "colon" and not labelled and self.row[place + 1].text != "|":
            self.scope, self.listed, self.group, self.scope_labels = sign.kind, False, [], 0
            self.part += 1
            return
        if not self.group and after in ("comma", "end", "dash") and not self._starts_mark(place):
            return
        if self.group and (self._behind_colon(place, labelled) or self._follows(place)):
            joined = place + 1 < len(self.row) and self.row[place + 1].kind in (YES, NO)
            if not (joined and sign.kind == NO and not labelled):
                self._behind(sign.kind, labelled)
            return
        if sign.kind == YES and self.scope == NO and not self.scope_labels and not self.listed:
            return
        self.scope, self.listed, self.group, self.scope_labels = sign.kind, False, [], 0

    def _starts_mark(self, place: int) -> bool:
        return not self.row[place].text[:1].isalnum()

    def _behind_colon(self, place: int, labelled: str) -> bool:
        """Whether a word stands behind ``label:``; behind ``label -`` unless a label follows it."""
        if labelled in ("label", "question"):
            return True
        return labelled == "dash" and self._follows(place)

    def _follows(self, place: int) -> bool:
        """Whether a word speaks of the labels before it: no label follows in its clause."""
        sign = self.row[place]
        if sign.text in ("yes", "none", "阴性", "阳性", "âm tính", "dương tính", "否"):
            return True
        if self._starts_mark(place):
            return self.row[place - 1].kind not in ("comma", "end")
        apart = bool(self.group) and self.group[-1].part != self.part
        if apart and self._words_behind(place):
            return False
        for one in self.row[place + 1 :]:
            if one.kind == "label":
                return False
            if one.kind in STOPS or (one.kind in (YES, NO) and one.kind != sign.kind):
                if one.kind == YES and sign.kind == NO:
                    continue
                return True
        return True

    def _words_behind(self, place: int) -> bool:
        """Whether a word that no kind knows follows at once: "no abnormality"."""
        end = self.row[place + 1].start if place + 1 < len(self.row) else len(self.text)
        return bool(re.search(r"\w", self.text[self.row[place].end : end]))

    def _behind(self, kind: str, labelled: str) -> None:
        """A word speaks of labels before it: of the one with the colon, else of those since the
        last comma, and of the whole list where that is joined."""
        last = self.group[-1]
        if labelled in ("label", "dash"):
            targets = [last]
        else:
            targets = [one for one in self.group if one.part == last.part]
            if self._joined():
                targets = [one for one in self.group if not one.own] or targets
            elif kind == NO:
                for one in self.group:
                    if one.part == last.part - 1 and not one.own and one.says == YES:
                        one.says = UNSURE
        for one in targets:
            if one.says == UNSURE and one.part in self.hedged:
                continue
            if kind == YES:
                if one.says == NO and one.listed and not self._joined():
                    one.says = YES
                elif one.says == NO and labelled:
                    one.says = UNSURE
                elif one.says == UNSURE and one.listed:
                    one.says = YES
            elif one.own and one.says == YES and not labelled:
                one.says = UNSURE
            else:
                one.says = NO
            one.own = True
        self.group, self.scope, self.scope_labels, self.listed = [], "", 0, False
        if labelled and self.header:
            self.scope = ""

    def _joined(self) -> bool:
        """Whether the labels before are one list: joined by a word, or all meant by one."""
        names = 0
        for one in reversed(self.row[: self.place]):
            if one.kind in ("and", "or", "all"):
                return True
            if one.kind == "label":
                names += 1
            if names > 1 or one.kind in ("end", "but"):
                break
        return False
