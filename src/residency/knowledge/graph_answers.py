"""Whether an answer says what the facts of a graph say that it cites, whoever worded it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

from residency.knowledge.forms import words
from residency.knowledge.graph import FREQUENCIES, Fact, Graph
from residency.knowledge.grounding import Ungrounded, new_names, plain

DENIES = re.compile(
    r"\b(?:no|not|none|never|cannot|false|wrong|without)\b|\b(?:không|chưa|chẳng|sai)\b|[不没未无错]"
)
NUMBER = re.compile(r"(?<![\w.])\d+(?:\.\d+)?")
HOLE = re.compile(r"\{\w+\}")


class AnswerCheck:
    """Checks answers in one language against one graph."""

    def __init__(self, graph: Graph, lang: str) -> None:
        self.graph, self.lang = graph, lang
        self.words = words(lang)

    @cached_property
    def names(self) -> dict[str, set[str]]:
        """A name as it is compared -> the nodes that have it."""
        found = dict[str, set[str]]()
        for id, node in self.graph.nodes.items():
            for name in node.names.get(self.lang, ()):
                found.setdefault(plain(name), set()).add(id)
        return found

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self.names), default=0)

    @cached_property
    def _vocabulary(self) -> str:
        """All words of the forms of questions, without names."""
        forms = self.words["forms"].values()
        texts = [text for several in forms for form in several for text in form]
        texts += [text for told in self.words["relations"].values() for text in told.values()]
        texts += [*self.words["frequency"].values(), *self.words["value"].values()]
        return plain("\n".join(HOLE.sub(" ", text) for text in [*texts, self.words["class"]]))

    def faults(
        self, question: str, answer: str, facts: Sequence[int], before: Iterable[str] = ()
    ) -> tuple[Ungrounded, ...]:
        """What an answer says that the facts it cites do not; ``before``: earlier turns."""
        cited = [self.graph.facts[number] for number in facts if number in self.graph.facts]
        if not cited or len(cited) < len(facts):
            return (Ungrounded("unsupported", answer),)
        return tuple(dict.fromkeys(self._faults(plain(question), plain(answer), cited, before)))

    def _faults(
        self, question: str, answer: str, cited: Sequence[Fact], before: Iterable[str]
    ) -> Iterator[Ungrounded]:
        ends = {end for fact in cited for end in (fact.subject, fact.object)}
        own = {plain(name) for end in ends for name in self._called(end)}
        asked, rest_asked = self.named(plain("\n".join(before)) + "\n" + question)
        said, rest = self.named(answer, own | asked)
        values = map(plain, self.words["value"].values())
        denied = bool(DENIES.search(_without(rest, values)))
        for name in sorted(said - own):
            if not (denied and name in asked):
                yield Ungrounded("entity", name)
        units = {plain(fact.unit) for fact in cited if fact.unit}
        for name in new_names(_without(rest, units), self._vocabulary + "\n" + rest_asked):
            yield Ungrounded("entity", name)
        yield from self._figures(rest, cited)
        if denied != any(fact.negated for fact in cited) and not (
            denied and self._deniable(asked & said - own, cited)
        ):
            yield Ungrounded("negation", answer)
        yield from self._directions(answer, cited)

    def _called(self, node: str) -> tuple[str, ...]:
        return self.graph.nodes[node].names.get(self.lang, ())

    def named(self, text: str, first: Iterable[str] = ()) -> tuple[set[str], str]:
        """Names of nodes in a text, the longest first, and the text without them; ``first``: names
        that are looked for before all others."""
        found = set[str]()
        for name in sorted(first, key=len, reverse=True):
            edge = r"(?<!\w){}(?!\w)" if self.lang != "zh" else "{}"
            text, times = re.subn(edge.format(re.escape(name)), " \x00 ", text)
            if times:
                found.add(name)
        place = 0
        while place < len(text):
            end = self._name_at(text, place)
            if end:
                found.add(text[place:end])
                text = text[:place] + " \x00 " + text[end:]
                place += 3
            else:
                place += 1
        return found, text

    def _name_at(self, text: str, place: int) -> int:
        """Where the longest name ends that begins here; 0 where none does."""
        spaced = self.lang != "zh"
        if spaced and (not text[place].isalnum() or (place and text[place - 1].isalnum())):
            return 0
        for end in range(min(len(text), place + self._longest), place + 1, -1):
            edge = end == len(text) or not text[end].isalnum() or not text[end - 1].isalnum()
            if (edge or not spaced) and text[place:end] in self.names:
                return end
        return 0

    def _figures(self, text: str, cited: Sequence[Fact]) -> Iterator[Ungrounded]:
        told = " ".join(self.words["frequency"].get(fact.frequency, "") for fact in cited)
        values = " ".join(fact.value for fact in cited)
        allowed = set(NUMBER.findall(plain(re.sub("[<>=]", " ", values + " " + told))))
        units = {plain(fact.unit) for fact in cited} | {"%"}
        for one in NUMBER.finditer(text):
            if one[0] not in allowed:
                yield Ungrounded("number", one[0])
            unit = re.match(r"\s?([%°µ\w/³]+)", text[one.end() :])
            if values.strip() and unit and unit[1] not in units:
                yield Ungrounded("unit", f"{one[0]} {unit[1]}")

    def _deniable(self, names: Iterable[str], cited: Sequence[Fact]) -> bool:
        """Whether something that is named is nothing that the subject has, as far as is known."""
        subject, relation = cited[0].subject, cited[0].relation
        nodes = {node for name in names for node in self.names.get(name, ())}
        return any(not self.graph.maybe(subject, relation, node) for node in nodes)

    def _directions(self, answer: str, cited: Sequence[Fact]) -> Iterator[Ungrounded]:
        for fact in cited:
            sign = re.match("[<>]?=?", fact.value)
            if sign and sign[0] and self._signs(answer) != [sign[0]]:
                yield Ungrounded("direction", fact.value)
        if len(cited) == 2 and cited[0].object == cited[1].object:
            order = [*FREQUENCIES, ""]
            more, less = sorted(cited, key=lambda fact: order.index(fact.frequency))
            first, then = self._place(answer, more.subject), self._place(answer, less.subject)
            if more.frequency != less.frequency and not 0 <= first < then:
                yield Ungrounded("direction", answer)

    def _signs(self, answer: str) -> list[str]:
        """Which of below, above, at most, at least an answer says."""
        found = list[str]()
        told = {sign: plain(phrase).strip() for sign, phrase in self.words["value"].items()}
        for sign, phrase in sorted(told.items(), key=lambda one: -len(one[1])):
            if phrase in answer:
                found.append(sign)
                answer = answer.replace(phrase, " ")
        return found

    def _place(self, answer: str, node: str) -> int:
        places = (answer.find(plain(name)) for name in self._called(node))
        return min((place for place in places if place >= 0), default=-1)


def _without(text: str, words: Iterable[str]) -> str:
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, " ")
    return text
