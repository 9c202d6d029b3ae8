"""Rules: identifiers that have a form, language by language, each with its own examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import msgspec

from residency.core.types import Value
from residency.deid import ages, columns
from residency.deid.checks import CHECKS
from residency.deid.dates import DateMention, dates_of
from residency.deid.find import Finding
from residency.deid.names.any import find_names
from residency.deid.packs import COMMON, LANGUAGES, macros, pack_names, read_pack
from residency.deid.view import View, plain
from residency.deid.words import Found, GluedWords, SpacedWords

Handler = Callable[[View, int, int, list[Finding]], None]
"""What is done at a word in [start, end): findings are added."""


class IdentifierRule(Value, frozen=True):
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
    """Name of the check in code (``checks.CHECKS``) that what is found must pass."""
    priority: int = 0
    positive: tuple[str, ...] = ()
    """Texts with what is found in [brackets]."""
    negative: tuple[str, ...] = ()
    """Texts in which nothing is found."""


@cache
def rules(name: str) -> tuple[IdentifierRule, ...]:
    """The rules of a pack."""
    known = list(reversed(macros(name).items()))
    return tuple(_rule(given, known) for given in read_pack(name)["rules"])


def _rule(given: dict[str, Any], known: Sequence[tuple[str, str]]) -> IdentifierRule:
    """A rule as its file has it, with the meaning of the macros in its pattern."""
    one = dict(given)
    for macro, meant in known:
        one["pattern"] = one["pattern"].replace(f"<{macro}>", meant)
    if one.get("cues"):
        cues = "|".join(map(re.escape, sorted(one["cues"], key=len, reverse=True)))
        letter = r"[A-Za-z\u00c0-\u1eff]"
        one["tail"] = one["pattern"]
        one["pattern"] = rf"(?<!{letter})(?i:{cues})(?!{letter}){one['tail']}"
    return msgspec.convert(one, IdentifierRule)


@cache
def rules_of(lang: str) -> RuleFinder:
    """What finds the identifiers of a language; of all three where it is another or not known."""
    return RuleFinder(lang if lang in LANGUAGES else "")


class RuleFinder:
    """Finds identifiers by the rules of one language, dates and names."""

    def __init__(self, lang: str) -> None:
        self.name, self.lang = f"rules:{lang or 'all'}", lang
        self.languages = (lang,) if lang else LANGUAGES
        ready = [
            _ReadyRule(rule, f"rule:{name}/{rule.id}")
            for language in (COMMON, *self.languages)
            for name in pack_names(language)
            for rule in rules(name)
        ]
        words: list[tuple[str, Handler]] = [
            *((plain(word), one.behind) for one in ready for word in one.rule.cues),
            *((plain(word), one.at) for one in ready for word in one.rule.at),
        ]
        self.words_in = _word_search(words, spaced=lang in ("vi", "en"))
        self.numbers = sorted(
            (one for one in ready if one.rule.digits), key=lambda one: one.rule.digits
        )
        self.hinted = [one for one in ready if one.rule.hint]
        self.peeked = [one for one in ready if one.rule.peek]
        behind = [one.rule.lead for one in self.numbers if "(?<=" in one.rule.pattern]
        self.before = max([BEFORE, *(lead + WIDEST for lead in behind)])
        self.likely = lru_cache(maxsize=1 << 13)(self._likely)

    def find(self, text: str, lang: str) -> list[Finding]:
        """Findings of every rule, of dates and of names; they may overlap."""
        view = View(text, lang)
        return self.search(view, dates_of(view))

    def search(self, view: View, dates: Iterable[DateMention]) -> list[Finding]:
        """The same, in a text whose other forms and dates are there already."""
        found: list[Finding] = []
        for start, end, handlers in self.words_in(view):
            for handler in handlers:
                handler(view, start, end, found)
        self._at_numbers(view, found)
        for one in self.peeked:
            for place in one.peek.finditer(view.shown):
                one.at(view, place.start(), place.end(), found)
        for one in self.hinted:
            if any(hint in view.low for hint in one.rule.hint):
                one.anywhere(view, found)
        found += [Finding(one.start, one.end, "date", "rule:dates", 1) for one in dates]
        found += columns.ages(view)
        found += ages.ages(view)
        for language in self.languages:
            found += find_names(view, language)
        return found

    def _at_numbers(self, view: View, found: list[Finding]) -> None:
        shown, fewest = view.shown, self.numbers[0].rule.digits
        for start, _, digits in view.numbers:
            if digits < fewest:
                continue
            signs = shown[max(0, start - self.before) : start + 1]
            for one, leads in self.likely(signs, start < self.before):
                if one.rule.digits > digits:
                    break
                one.number(shown, start, leads, found)

    def _likely(self, signs: str, whole: bool) -> list[tuple[_ReadyRule, list[int]]]:
        """Rules that may find something at a number, with how many signs before it their forms may
        begin: those whose forms fit the signs before the number and its first digit so far.
        ``whole``: nothing stands before these signs."""
        start, kept = len(signs) - 1, list[tuple[_ReadyRule, list[int]]]()
        for one in self.numbers:
            if one.rule.first and signs[start] not in one.rule.first:
                continue
            leads = [
                lead
                for lead in range(min(one.rule.lead, start), -1, -1)
                if one.pattern.match(signs, start - lead, partial=True)
            ]
            if leads:
                kept.append((one, leads))
        return kept


def _word_search(
    words: Sequence[tuple[str, Handler]], spaced: bool
) -> Callable[[View], Found[Handler]]:
    """What finds these words in the plain form of a text."""
    if spaced:
        between = SpacedWords(words)
        return lambda view: between.find(view.folded_words)
    within = GluedWords(words)
    return lambda view: within.find(view.folded, view.folded_codes)


BEFORE = 3
"""How many signs before a number tell which rules may find something at it, at the least: all that
a form may begin with there. What must not stand before a form is only looked at in full later, what
must stand there has to be among them."""
WIDEST = 2
"""Signs that a number's rule may want to stand before its form, at the most."""


class _ReadyRule:
    """A rule with its patterns compiled."""

    def __init__(self, rule: IdentifierRule, by: str) -> None:
        import regex

        self.rule, self.by = rule, by
        self.marked = any(not word.isascii() and word[0] < "\u2e80" for word in rule.cues)
        self.cues = frozenset(word.lower() for word in rule.cues)
        self.pattern = regex.compile((rule.tail or rule.pattern).strip(), regex.VERSION0)
        self.grouped = "v" in self.pattern.groupindex
        self.check = CHECKS[rule.check] if rule.check else None
        self.peek = re.compile(rule.peek)

    def behind(self, view: View, start: int, end: int, out: list[Finding]) -> None:
        """Findings behind a cue."""
        if out and start < out[-1].end and out[-1].by == self.by:
            return  # within what was found last
        cue = view.low[start:end] if self.marked else ""
        other = self.marked and cue not in self.cues
        if other and not (cue.isascii() and view.unmarked_at(start, end)):
            return  # another word, with other marks or none
        if match := self.pattern.match(view.shown, end):
            self._add(match, view.shown, out, start)

    def at(self, view: View, start: int, end: int, out: list[Finding]) -> None:
        """Findings that begin at a word."""
        if match := self.pattern.match(view.shown, start):
            self._add(match, view.shown, out)

    def number(self, text: str, start: int, leads: Iterable[int], out: list[Finding]) -> None:
        """Findings at a number, or a few signs before it."""
        for lead in leads:
            if match := self.pattern.match(text, start - lead):
                self._add(match, text, out)
                return

    def anywhere(self, view: View, out: list[Finding]) -> None:
        """Findings wherever they stand."""
        for match in self.pattern.finditer(view.shown):
            self._add(match, view.shown, out)

    def _add(self, match: Any, text: str, out: list[Finding], first: int | None = None) -> None:
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
