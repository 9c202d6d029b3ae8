"""Rules: identifiers that have a form, language by language, each with its own examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from residency.core.types import Value
from residency.deid.find import Finding, View, Words, plain

FOLDER = Path(__file__).parent / "rules"
LANGUAGES = ("vi", "zh", "en")
Check = Callable[[str, str, int], tuple[int, int] | None]
Handler = Callable[[View, int, int, list[Finding]], None]
"""What is done at a word in [start, end): findings are added."""


class Rule(Value, frozen=True):
    """One form of one kind of identifier, and where it is tried: behind cues, at words, at numbers,
    or everywhere in a text that holds a hint."""

    id: str
    kind: str
    pattern: str
    """The whole form. Group v is what is found; the whole match where there is none."""
    tail: str = ""
    """What stands behind a cue."""
    cues: tuple[str, ...] = ()
    """Words behind which the form stands, and with which it is found where it has no group v; case
    and Vietnamese marks do not count."""
    at: tuple[str, ...] = ()
    """Words at which the form begins."""
    digits: int = 0
    """The form begins at a number and holds so many digits at least."""
    first: str = ""
    """Digits with which that number may begin; any where empty."""
    peek: str = ""
    """The form begins where this simple one does, which is quick to look for."""
    lead: int = 0
    """How many signs of the form may stand before that number."""
    hint: tuple[str, ...] = ()
    """The form is looked for only where one of these (small letters) stands in the text."""
    check: str = ""
    priority: int = 0
    positive: tuple[str, ...] = ()
    """Texts with what is found in [brackets]."""
    negative: tuple[str, ...] = ()


@cache
def pack(name: str) -> Mapping[str, Any]:
    """The file of ``common`` or of a language: macros, word lists and rules."""
    import yaml

    found: Mapping[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text("utf-8"))
    return found


@cache
def rules(name: str) -> tuple[Rule, ...]:
    """The rules of ``common`` or of a language."""
    import msgspec

    macros = list(pack(name).get("macros", {}).items())
    made = []
    for given in pack(name)["rules"]:
        one = dict(given)
        for macro, meant in reversed(macros):  # one may be made of those above it
            one["pattern"] = one["pattern"].replace(f"<{macro}>", meant)
        if one.get("cues"):
            words = "|".join(map(re.escape, sorted(one["cues"], key=len, reverse=True)))
            one["tail"] = one["pattern"]
            one["pattern"] = (
                rf"(?<![A-Za-z\u00c0-\u1eff])(?i:{words})(?![A-Za-z\u00c0-\u1eff]){one['tail']}"
            )
        made.append(msgspec.convert(one, Rule))
    return tuple(made)


@cache
def packs(lang: str) -> Rules:
    """What finds the identifiers of a language; of all three where it is another or not known."""
    return Rules(lang if lang in LANGUAGES else "")


class Rules:
    """Rules, dates and names of one language."""

    def __init__(self, lang: str) -> None:
        from residency.deid.names.any import Names

        self.name, self.lang = f"rules:{lang or 'all'}", lang
        own = [lang] if lang else list(LANGUAGES)
        tried = [
            _Tried(rule, f"rule:{name}/{rule.id}")
            for name in ("common", *own)
            for rule in rules(name)
        ]
        cues = [(plain(word), one.behind) for one in tried for word in one.rule.cues]
        starts = [(plain(word), one.at) for one in tried for word in one.rule.at]
        self.blanks = lang in ("vi", "en")
        self.words: Words[Handler] = Words([*cues, *starts], between_blanks=self.blanks)
        self.numbers = sorted(
            (one for one in tried if one.rule.digits), key=lambda one: one.rule.digits
        )
        self.fewest = min(one.rule.digits for one in self.numbers)
        self.hinted = [one for one in tried if one.rule.hint]
        self.peeked = [one for one in tried if one.rule.peek]
        self.names = [Names(one) for one in own]
        self.before = max(
            [
                BEFORE,
                *(one.rule.lead + WIDEST for one in self.numbers if "(?<=" in one.rule.pattern),
            ]
        )
        self.likely = lru_cache(maxsize=1 << 13)(self._likely)

    def find(self, text: str, lang: str) -> list[Finding]:
        """Findings of every rule, of dates and of names; they may overlap."""
        return self.search(View(text, lang))

    def _likely(self, signs: str, whole: bool) -> list[tuple[_Tried, int, list[int]]]:
        """Rules that may find something at a number, with how many signs before it their forms may
        begin: those whose forms fit the signs before the number and its first digit so far.
        ``whole``: nothing stands before these signs."""
        start, kept = len(signs) - 1, list[tuple[_Tried, int, list[int]]]()
        for one in self.numbers:
            if one.first and signs[start] not in one.first:
                continue
            leads = [
                lead
                for lead in one.leads
                if lead <= start and one.pattern.match(signs, start - lead, partial=True)
            ]
            if leads:
                kept.append((one, one.rule.digits, leads))
        return kept

    def search(self, view: View) -> list[Finding]:
        """The same, in a text whose other forms may be there already."""
        found: list[Finding] = []
        places = (
            self.words.find(view.folded_words)
            if self.blanks
            else self.words.find(view.folded, view.folded_codes)
        )
        for start, end, handlers in places:
            for handler in handlers:
                handler(view, start, end, found)
        shown = view.shown
        for start, _, digits in view.numbers:
            if digits >= self.fewest:
                for one, least, leads in self.likely(
                    shown[max(0, start - self.before) : start + 1], start < self.before
                ):
                    if least > digits:
                        break
                    one.number(shown, start, leads, found)
        for one in self.peeked:
            for place in one.peek.finditer(view.shown):
                one.at(view, place.start(), place.end(), found)
        for one in self.hinted:
            if any(hint in view.low for hint in one.rule.hint):
                one.anywhere(view, found)
        found += [
            Finding(mention.start, mention.end, "date", "rule:dates", 1) for mention in view.dates
        ]
        for names in self.names:
            found += names.search(view)
        return found


BEFORE = 3
"""How many signs before a number tell which rules may find something at it, at the least: all that
a form may begin with there. What must not stand before a form is only looked at in full later, what
must stand there has to be among them."""
WIDEST = 2
"""Signs that a number's rule may want to stand before its form, at the most."""


class _Tried:
    """A rule that is ready to be tried."""

    def __init__(self, rule: Rule, by: str) -> None:
        import regex

        from residency.deid.checks import CHECKS

        self.marked = any(not word.isascii() and word[0] < "\u2e80" for word in rule.cues)
        self.cues = frozenset(word.lower() for word in rule.cues)
        self.rule, self.by, self.first = rule, by, frozenset(rule.first)
        self.pattern = regex.compile((rule.tail or rule.pattern).strip(), regex.VERSION0)
        self.grouped = "v" in self.pattern.groupindex
        self.check: Check | None = CHECKS[rule.check] if rule.check else None
        self.peek = re.compile(rule.peek)
        self.leads = tuple(range(rule.lead, -1, -1))

    def behind(self, view: View, start: int, end: int, out: list[Finding]) -> None:
        """Findings behind a cue."""
        if out and start < out[-1].end and out[-1].by == self.by:
            return  # within what was found last
        cue = view.low[start:end] if self.marked else ""
        if (
            self.marked
            and cue not in self.cues
            and not (cue.isascii() and view.unmarked_at(start, end))
        ):
            return  # another word, with other marks or none
        if match := self.pattern.match(view.shown, end):
            self._found(match, view.shown, out, start)

    def at(self, view: View, start: int, end: int, out: list[Finding]) -> None:
        """Findings that begin at a word."""
        if match := self.pattern.match(view.shown, start):
            self._found(match, view.shown, out)

    def number(self, text: str, start: int, leads: Iterable[int], out: list[Finding]) -> None:
        """Findings at a number, or a few signs before it."""
        for lead in leads:
            if match := self.pattern.match(text, start - lead):
                self._found(match, text, out)
                return

    def anywhere(self, view: View, out: list[Finding]) -> None:
        """Findings wherever they stand."""
        for match in self.pattern.finditer(view.shown):
            self._found(match, view.shown, out)

    def _found(self, match: Any, text: str, out: list[Finding], first: int | None = None) -> None:
        if self.grouped and match.group("v") is not None:
            start, end = match.span("v")
        else:
            start, end = match.start() if first is None else first, match.end()
        if self.check is not None:
            found = self.check(text[start:end], text, start)
            if found is None:
                return
            start, end = start + found[0], start + found[1]
        if start < end:
            out.append(Finding(start, end, self.rule.kind, self.by, self.rule.priority))
