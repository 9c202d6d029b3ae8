"""Where the versions of several annotators differ: the places of a note that must be settled, and
those that need not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import TypeVar

import msgspec

from residency.core.types import Span, Value
from residency.label.annotations import Version, sort_spans

T = TypeVar("T")


class Place(Value, frozen=True):
    """A stretch of a note with what each annotator says of it."""

    note: str
    start: int
    end: int
    versions: dict[str, Version]
    """Annotator -> spans there, empty for nothing."""

    @property
    def majority(self) -> Version | None:
        """What more than half of the annotators say alike, to the last attribute; None where there
        is no such thing."""
        version, count = Counter(self.versions.values()).most_common(1)[0]
        return version if 2 * count > len(self.versions) else None

    @property
    def unanimous(self) -> bool:
        """Whether all say the same."""
        return len(set(self.versions.values())) == 1

    @property
    def id(self) -> str:
        """Stays the same as long as what was said does."""
        said = msgspec.json.encode(sorted(map(_bare, self.candidates)))
        return f"{self.note}:{self.start}-{self.end}:{sha256(said).hexdigest()[:8]}"

    @property
    def candidates(self) -> tuple[Version, ...]:
        """The different versions without names, in an order that says nothing of who said what."""

        def drawn(version: Version) -> str:
            key = msgspec.json.encode([self.note, self.start, _bare(version)])
            return sha256(key).hexdigest()

        return tuple(sorted(set(self.versions.values()), key=drawn))

    def without_text(self) -> Place:
        """The same without any stretch of the note."""
        bare = {name: without_text(version) for name, version in self.versions.items()}
        return msgspec.structs.replace(self, versions=bare)


def without_text(version: Version) -> Version:
    """Spans without their quotes."""
    return tuple(msgspec.structs.replace(span, quote="") for span in version)


def places(note: str, versions: Mapping[str, Sequence[Span]]) -> list[Place]:
    """Stretches of overlapping spans of anybody, in order: together they hold every span once."""
    every = ((span, name) for name, spans in versions.items() for span in sort_spans(spans))
    return [
        Place(
            note=note,
            start=min(span.start for span, _ in group),
            end=max(span.end for span, _ in group),
            versions={
                name: tuple(sort_spans(span for span, by in group if by == name))
                for name in versions
            },
        )
        for group in touching(every)
    ]


def touching(spans: Iterable[tuple[Span, T]]) -> Iterator[list[tuple[Span, T]]]:
    """Spans, each with whose it is, grouped so that those that overlap are together."""
    group: list[tuple[Span, T]] = []
    reach = 0
    for one in sorted(spans, key=lambda one: (one[0].start, one[0].end)):
        if group and one[0].start >= reach:
            yield group
            group, reach = [], 0
        group.append(one)
        reach = max(reach, one[0].end)
    if group:
        yield group


def _bare(version: Version) -> list[list[object]]:
    """A version as JSON, without text."""
    return [
        [span.start, span.end, span.label, span.code or "", list(span.attributes)]
        for span in version
    ]
