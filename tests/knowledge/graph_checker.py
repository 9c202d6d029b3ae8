"""An independent checker of questions from a graph: it knows the graph's tables and plain reading,
and shares no code with what asks.

An answer is supported where every name in it is the name of a node of a cited fact (or of one that
is said not to be so, and then nothing in the graph may say otherwise), where what it claims follows
from the cited rows, and where lists are whole. Inheritance: what has a finding has all that the
finding is a kind of.
"""

from __future__ import annotations

import re
import sqlite3
from collections import defaultdict
from typing import Any

NO = {
    "en": re.compile(
        r"^(no\b|false|that is wrong|we do not|it has not)|is not among|is none of|would not be",
        re.I,
    ),
    "vi": re.compile(
        r"^(không|câu này sai|nói vậy là sai|chưa|trong danh sách không|ta không)|không nằm|không phải là mục",
        re.I,
    ),
    "zh": re.compile(r"^(不|没|这句话错|清单里没|找不到|未)|不在其列|不是其中|不属于其中|不应"),
}
"""How an answer that denies is worded: written by hand from reading the questions."""
MORE = re.compile(
    r"Listed are|They name for|In it stand|but for example|Recorded are|Được liệt kê có|nêu, ví dụ|Trong đó có|mà gặp|Đã ghi nhận|所列的|提到的|清单里例如|，能找到的例如|已记载的"
)


class Checker:
    """Reads a graph's tables into plain dictionaries."""

    def __init__(self, path: Any, lang: str) -> None:
        database = sqlite3.connect(path)
        rows = database.execute(
            "SELECT id, subject, relation, object, value, unit, frequency, negated, source FROM facts"
        )
        self.facts = {row[0]: row for row in rows}
        self.kind = dict(database.execute("SELECT id, kind FROM nodes"))
        self.usual = dict(
            database.execute("SELECT node, name FROM names WHERE lang = ? AND place = 0", (lang,))
        )
        database.close()
        self.lang = lang
        self.up, self.said, self.nodes_of = defaultdict(set), defaultdict(set), defaultdict(set)
        self.denied = defaultdict(set)
        for _, subject, relation, object, *_, negated, _ in self.facts.values():
            if relation == "is_a" and not negated:
                self.up[subject].add(object)
            (self.denied if negated else self.said)[subject, relation].add(object)
        for node, name in self.usual.items():
            self.nodes_of[name.casefold()].add(node)
        self.longest = max(map(len, self.nodes_of), default=0)
        self.down = defaultdict(set)
        for node in list(self.up):
            for above in self.above(node):
                self.down[above].add(node)

    def above(self, node: str) -> set[str]:
        found, todo = set(), [node]
        while todo:
            new = self.up.get(todo.pop(), set()) - found
            found |= new
            todo += new
        return found

    def open_or_true(self, subject: str, relation: str, object: str) -> bool:
        """Whether a row, with inheritance of the object and the subject, says so or may."""
        mine = self.above(object)
        kin = {subject, *self.above(subject), *self.down.get(subject, ())}
        return any(
            one == object or one in mine or object in self.above(one)
            for who in kin
            for one in self.said.get((who, relation), ())
        )

    def named(self, text: str, allowed: set[str]) -> set[str]:
        """Nodes named in a text, longest names first; ``allowed``: tried before all others."""
        low, found = text.casefold(), set()
        for node in sorted(allowed, key=lambda one: -len(self.usual.get(one, ""))):
            name = self.usual.get(node, "").casefold()
            if name and name in low:
                found.add(node)
                low = low.replace(name, "\x00")
        return found

    def unknown_items(self, text: str, known: set[str]) -> bool:
        """Whether a list (what stands after the last colon) holds more than known nodes' names."""
        low = text.casefold()
        for name in sorted((self.usual[one].casefold() for one in known), key=len, reverse=True):
            low = low.replace(name, "")
        return re.split("[:：]", low)[-1].strip(" ;；.。") != ""

    def fault(self, row: dict[str, Any]) -> str:
        """Why a row is not supported; empty where it is."""
        cited = [self.facts.get(number) for number in row["facts"]]
        if not cited or None in cited:
            return "cites no fact, or one that is not there"
        if {fact[8] for fact in cited} != set(row["sources"]):
            return "sources are not those of the facts"
        ends = {fact[1] for fact in cited} | {fact[3] for fact in cited}
        return getattr(self, "_" + row["kind"])(row, cited, ends)

    def _denies(self, text: str) -> bool:
        return bool(NO[self.lang].search(text))

    def _fact(self, row: Any, cited: Any, ends: Any) -> str:
        (fact,) = cited
        if not ends <= self.named(row["instruction"], ends):
            return "the question does not name the fact's ends"
        return "" if self._denies(row["output"]) == bool(fact[7]) else "says the opposite"

    def _listed(self, row: Any, cited: Any, ends: Any) -> str:
        subject, relation = cited[0][1], cited[0][2]
        if any(fact[7] or (fact[1], fact[2]) != (subject, relation) for fact in cited):
            return "cites what is not of the list"
        if not self._denies(row["output"]):
            return "" if ends <= self.named(row["instruction"], ends) else "asks for another"
        head = MORE.split(row["output"])[0]
        asked = self._asked(row["instruction"], head, subject)
        if asked is None:
            return "names nothing that is not so"
        if self.open_or_true(subject, relation, asked):
            return "denies what is, or may be, so"
        listed = {fact[3] for fact in cited}
        return "" if listed <= self.named(row["output"], listed) else "lists others than it cites"

    def _asked(self, question: str, answer: str, subject: str) -> str | None:
        """The longest name that stands in question and answer, other than the subject's."""
        low, cut = (
            answer.casefold(),
            question.casefold().replace(self.usual[subject].casefold(), "\x00"),
        )
        best = ""
        for start in range(len(low)):
            for end in range(start + len(best) + 1, min(len(low), start + self.longest) + 1):
                name = low[start:end]
                if name in self.nodes_of and name in cut:
                    best = name
        ids = sorted(self.nodes_of.get(best, ()))
        return ids[0] if ids else None

    WORDS = {
        "always": ("always", "luôn có", "必有"),
        "very frequent": ("80", "99"),
        "frequent": ("30", "79"),
        "occasional": ("5", "29"),
        "very rare": ("1", "4"),
    }  # fmt: skip

    def _tells(self, text: str, frequency: str) -> bool:
        words = self.WORDS[frequency]
        if frequency == "always":
            return any(word in text for word in words)
        return re.search(rf"(?<!\d){words[0]}\s?%?\D{{1,5}}{words[1]}\s?%", text) is not None

    def _often(self, row: Any, cited: Any, ends: Any) -> str:
        (fact,) = cited
        if not ends <= self.named(row["instruction"], ends) or fact[7]:
            return "asks of another fact"
        return "" if self._tells(row["output"], fact[6]) else "tells another frequency"

    def _whole(self, text: str, cited: Any, claimed: str) -> str:
        """Whether a list holds all of a subject and relation, or all of one frequency."""
        subject, relation = cited[0][1], cited[0][2]
        listed = {fact[3] for fact in cited}
        every = self.said[subject, relation]
        classes = {fact[6] for fact in cited}
        if classes != {""} and len(classes) == 1:
            (one,) = classes
            every = (
                {
                    fact[3]
                    for fact in self.facts.values()
                    if fact[1] == subject and fact[2] == relation and fact[6] == one and not fact[7]
                }
                if one
                else every
            )
            if not self._tells(claimed, one):
                return "does not say which frequency it lists"
        if listed != every:
            return "is not the whole list"
        if not listed <= self.named(text, listed):
            return "does not name all that it cites"
        return "lists what is not there" if self.unknown_items(text, listed) else ""

    def _list(self, row: Any, cited: Any, ends: Any) -> str:
        return self._whole(row["output"], cited, row["instruction"])

    def _short(self, row: Any, cited: Any, ends: Any) -> str:
        listed = {fact[3] for fact in cited}
        if listed != self.said[cited[0][1], cited[0][2]] or len(row["points"]) != len(listed):
            return "is not the whole list"
        for fact in cited:
            name = self.usual[fact[3]]
            points = [one for one in row["points"] if one == name or one.startswith(name + ": ")]
            if len(points) != 1 or points[0] not in row["answer"]:
                return "a point is not in the answer"
            if fact[6] and not self._tells(points[0], fact[6]):
                return "a point tells another frequency"
        return ""

    def _kind(self, row: Any, cited: Any, ends: Any) -> str:
        first, second = cited
        if second[2] != "is_a" or second[1] != first[3] or first[7] or second[7]:
            return "the facts do not follow each other"
        return "" if ends <= self.named(row["output"], ends) else "does not name them"

    def _chain(self, row: Any, cited: Any, ends: Any) -> str:
        first, second = cited
        if second[1] != first[3] or first[7] or second[7]:
            return "the facts do not follow each other"
        return "" if ends <= self.named(row["output"], ends) else "does not name them"

    def _value(self, row: Any, cited: Any, ends: Any) -> str:
        (fact,) = cited
        number = re.sub("[<>=]", "", fact[4])
        if fact[2] != "criterion" or not ends <= self.named(row["output"], ends):
            return "asks of another fact"
        if f"{number} {fact[5]}" not in row["output"]:
            return "tells another value or unit"
        least = re.search("at least|từ |不低于", row["output"]) is not None
        above = re.search("above|trên |高于", row["output"]) is not None
        below = re.search("below|dưới |低于", row["output"]) is not None and not least
        wanted = (
            fact[4].startswith(">="),
            fact[4][0] == ">" and fact[4][1] != "=",
            fact[4][0] == "<",
        )
        return "" if (least, above, below) == wanted else "tells another direction"

    def _compare(self, row: Any, cited: Any, ends: Any) -> str:
        order = list(self.WORDS)
        one, other = sorted(cited, key=lambda fact: order.index(fact[6]))
        if one[3] != other[3] or one[6] == other[6] or one[7] or other[7]:
            return "compares other things"
        text = row["output"]
        for fact in (one, other):
            if not self._tells(text, fact[6]):
                return "tells another frequency"
        names = [self.usual[fact[1]].casefold() for fact in (one, other)]
        low = text.casefold()
        if names[1] in names[0] or names[0] in names[1]:
            return ""
        return "" if -1 < low.index(names[0]) < low.index(names[1]) else "names the other one"

    def _shared(self, row: Any, cited: Any, ends: Any) -> str:
        subjects = sorted({fact[1] for fact in cited})
        if len(subjects) != 2:
            return "shares between others than two"
        common = self.said[subjects[0], cited[0][2]] & self.said[subjects[1], cited[0][2]]
        listed = {fact[3] for fact in cited}
        if listed != common or not common <= self.named(row["output"], common):
            return "is not all that they share"
        return "lists what they do not share" if self.unknown_items(row["output"], listed) else ""

    def _choice(self, row: Any, cited: Any, ends: Any) -> str:
        (fact,) = cited
        if row["options"][row["answer"]].casefold() != self.usual[fact[3]].casefold() or fact[7]:
            return "the answer is another one"
        for letter, name in row["options"].items():
            if letter != row["answer"]:
                nodes = {
                    one
                    for one in self.nodes_of[name.casefold()]
                    if self.kind[one] == self.kind[fact[3]]
                }
                if not nodes or any(self.open_or_true(fact[1], fact[2], one) for one in nodes):
                    return "a distractor is, or may be, so"
        return ""

    def _which(self, row: Any, cited: Any, ends: Any) -> str:
        subject, findings = cited[0][1], {fact[3] for fact in cited}
        if row["options"][row["answer"]] != self.usual[subject]:
            return "the answer is another one"
        if (
            len(findings) != 3
            or not findings <= self.named(row["question"], findings)
            or {fact[1] for fact in cited} != {subject}
        ):
            return "the findings are not those of the disease"
        for letter, name in row["options"].items():
            if letter != row["answer"]:
                nodes = {
                    one for one in self.nodes_of[name.casefold()] if self.kind[one] == "disease"
                }
                if len(nodes) != 1 or all(
                    self.open_or_true(min(nodes), "has_finding", one) for one in findings
                ):
                    return "a distractor may have all of them"
        return ""

    def _dialogue(self, row: Any, cited: Any, ends: Any) -> str:
        (question, answer), *middle = row["history"]
        subject, relation = cited[0][1], cited[0][2]
        last = cited[-1:] if middle else []
        if found := self._whole(answer, cited[: len(cited) - len(last)], question):
            return found
        for (_, said), fact in zip(middle, last, strict=True):
            if fact[3] not in self.named(said, {fact[3]}) or not self._tells(said, fact[6]):
                return "a turn tells another frequency"
        asked = self._asked(row["instruction"], row["output"], subject)
        if asked is None or not self._denies(row["output"]):
            return "the last turn denies nothing"
        return "denies what is so" if self.open_or_true(subject, relation, asked) else ""

    def skeleton(self, text: str, row: dict[str, Any]) -> str:
        """The words of a question without the names of nodes."""
        ends = {end for number in row["facts"] for end in self.facts[number][1:4:2]}
        low = text.casefold()
        if row["kind"] in ("listed", "dialogue"):
            asked = self._asked(text, MORE.split(row["output"])[0], self.facts[row["facts"][0]][1])
            ends |= {asked} if asked else set()
        names = [self.usual[one].casefold() for one in ends if one in self.usual]
        if row["kind"] == "compare" or row["kind"] == "shared":
            names += [self.usual[one].casefold() for one in ends if one in self.usual]
        for name in sorted(names, key=len, reverse=True):
            low = low.replace(name, "_")
        return re.sub(r"_(; _|；_)*", "_", low)
