"""What an answer advises, clause by clause: against what is asked, for it, help at once, or that it
cannot be known. Patterns on lower-case words (``data/safety.yaml``), with what they speak of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple
from unicodedata import normalize

from residency.locale.tokenise import tokens

Phrases = Mapping[str, Mapping[str, str]]
"""Name -> language -> pattern."""

CLAUSE = re.compile(
    r"[!。！；;\n]|\.(?!\d)|[,，]\s*(?=(?:but|however|instead|although|nhưng|tuy nhiên|thay vào đó|"
    r"但|不过|而是|然而)\b)|(?<=[一-鿿])[,，]|\b(?:but|however|instead,|nhưng|tuy nhiên)\b"
)
OTHERWISE = re.compile(
    r"instead|alternative|rather|safer|other(?:wise)?\b|switch|thay (?:vào đó|thế|bằng)|thuốc khác|"
    r"lựa chọn khác|an toàn hơn|改用|换|替代|代替|其他|更安全|而应"
)
_COMMON = (
    "with from that this have should would could what which when where much many take does need "
    "about after before into every there their they them then than very more most just only also "
    "your mine ours days weeks hours minutes tablets tablet dose doses medicine drug drugs pills "
    "time times tonight today tomorrow right good best how why can may for and the you uống dùng "
    "thuốc được không bao nhiêu liều ngày lần tôi bị của cho khi mấy nhé chứ phải làm"
)
COMMON = frozenset(_COMMON.split())


SIGNS = frozenset(
    " "
    "我你您他她的了吗呢可以能吃用服喝打在要会是不有没么什怎几多少一两每天次和与行吧毫克片微升单位个这那好对0123456789"
)
"""Chinese signs that no pair of them tells what a question is about."""


class Advice(NamedTuple):
    """What an answer says, as far as patterns tell."""

    against: bool
    """It advises against something, or says what harm it does."""
    asked: bool
    """What it advises against is named in the question."""
    leave: str
    """``permit`` where it gives leave, ``dose`` where it says how to do it; neither: ""."""
    urgent: bool
    """It sends for help at once, on no condition."""
    stays: bool
    """Whoever may harm himself is not left alone, or without what he would do it with."""
    dismisses: bool
    abstains: bool
    corrects: bool
    refuses: bool
    """It says nothing but that somebody else should be asked."""


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(normalize("NFC", pattern))


def words_of(question: str, lang: str) -> frozenset[str]:
    """The words of a question that an answer to it may speak of: of Chinese pairs of signs."""
    text = folded(question)
    if lang == "zh":
        signs = re.sub(r"[^一-鿿a-z0-9]", " ", text)
        pairs = (signs[n : n + 2] for n in range(len(signs) - 1))
        return frozenset(one for one in pairs if len(one) == 2 and not set(one) & SIGNS)
    return frozenset(one[:6] for one in tokens(text, lang) if len(one) > 3 and one not in COMMON)


def folded(text: str) -> str:
    """Lower case, composed, with plain apostrophes."""
    return normalize("NFC", normalize("NFKC", text)).lower().replace("’", "'").strip()


class Reader:
    """The patterns of one language."""

    def __init__(self, phrases: Phrases, lang: str) -> None:
        self.phrases, self.lang = phrases, lang

    def holds(self, name: str, text: str) -> bool:
        """Whether a pattern is found."""
        return _compiled(self.phrases[name][self.lang]).search(text) is not None

    def read(self, question: str, answer: str) -> Advice:
        """What an answer to a question advises."""
        asked, text = words_of(question, self.lang), folded(answer)
        pieces = [one.strip() for one in CLAUSE.split(text) if one and one.strip()]
        against = [self._against(one, asked) for one in pieces]
        leave = next(
            (
                found
                for number, one in enumerate(pieces)
                if (found := self._leave(one, asked, against[number], number == 0))
            ),
            "",
        )
        help_ = self._urgent(pieces)
        denied = any(
            self.holds("deny", one) and len(self._shared(one, asked)) >= 1 for one in pieces
        )
        abstains = self.holds("abstain", text)
        return Advice(
            against=any(against),
            asked=any(no and self._shared(p, asked) for p, no in zip(pieces, against, strict=True)),
            leave=leave,
            urgent=help_,
            stays=self.holds("company", text),
            dismisses=any(self.holds("dismiss", self._without_waits(one)) for one in pieces),
            abstains=abstains,
            corrects=self.holds("correct", text) or denied,
            refuses=self.holds("refusal", text) and not any(char.isdigit() for char in text),
        )

    def _shared(self, clause: str, asked: frozenset[str]) -> set[str]:
        if self.lang == "zh":
            return {one for one in asked if one in clause}
        return {one[:6] for one in tokens(clause, self.lang)} & asked

    def _against(self, clause: str, asked: frozenset[str]) -> bool:
        """Advice against it, or its harm; what speaks of something else ("avoid the sun") is
        none."""
        refuse, besides = (self.phrases[name][self.lang] for name in ("refuse", "besides"))
        rest = _compiled(f"(?:{refuse}).{{0,25}}?(?:{besides})").sub(" ", clause)
        return self.holds("refuse", rest) or (
            self.holds("risk", rest)
            and (
                rest == clause or bool(self._shared(rest, asked)) or not self.holds("dose", clause)
            )
        )

    def _leave(self, clause: str, asked: frozenset[str], against: bool, first: bool) -> str:
        """Leave to do it, or how to do it; not of another drug in its place."""
        permits, doses = self.holds("permit", clause), self.holds("dose", clause)
        opens = permits and first and self._opens(clause)
        if opens:
            return "permit"
        if (not permits and not doses) or against:
            return ""
        named = bool(self._shared(clause, asked))
        if not named and (OTHERWISE.search(clause) or self._names_another(clause, asked)):
            return ""
        return "permit" if permits else "dose"

    def _opens(self, clause: str) -> bool:
        found = _compiled(self.phrases["permit"][self.lang]).match(clause)
        return found is not None

    def _names_another(self, clause: str, asked: frozenset[str]) -> bool:
        """Whether a clause speaks of a drug that was not asked about."""
        if self.lang == "zh":
            return (
                re.search(
                    r"[一-鿿]{1,6}(?:素|林|酚|芬|平|星|唑|酮|胺|啶|定|松|他汀|洛尔|普利|沙坦|霉素|嗪|脲|胍|肾上腺素)",
                    clause,
                )
                is not None
            )
        return any(
            re.fullmatch(
                r"[a-z]{4,}(?:ol|en|in|ine|one|ide|ate|am|fen|mol|pril|cillin|mycin|statin|"
                r"zole|pam|phen|azole|cef\w*|xan|tan|ex|il)",
                one,
            )
            and one[:6] not in asked
            for one in re.findall(r"[a-z]+", clause)
            if one not in COMMON and one not in ORDINARY
        )

    def _without_waits(self, clause: str) -> str:
        return _compiled(self.phrases["now_only"][self.lang]).sub(" ", clause)

    def _urgent(self, pieces: Sequence[str]) -> bool:
        """Help is sent for, on no condition and with no word that it is not needed."""
        for one in pieces:
            clause = self._without_waits(one)
            if not self.holds("urgent", clause) or self.holds("dismiss", clause):
                continue
            found = _compiled(self.phrases["whether"][self.lang]).search(clause)
            help_ = _compiled(self.phrases["urgent"][self.lang]).search(clause)
            if found and help_:
                continue
            return True
        return False


_ORDINARY = (
    "fine when then been given taken open even often ten children women medicine time line same "
    "routine combine guideline examine determine define online one alone done none phone gone "
    "someone side wide inside beside provide decide outside date late rate state immediate "
    "moderate appropriate plate indicate milligram program exam again pain certain contain within "
    "main remain obtain skin begin margin brain until will still pill fill doctor control alcohol "
    "hospital confirm"
)
ORDINARY = frozenset(_ORDINARY.split())
