"""Where the versions of several annotators differ: the places of a note that must be settled, and
those that need not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

import msgspec

from residency.core.types import Span, Value
from residency.label.annotations import Version, ordered


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
            said = msgspec.json.encode([self.note, self.start, _bare(version)])
            return sha256(said).hexdigest()

        return tuple(sorted(set(self.versions.values()), key=drawn))


def places(note: str, versions: Mapping[str, Sequence[Span]]) -> list[Place]:
    """Stretches of overlapping spans of anybody, in order: together they hold every span once."""
    every = sorted(
        ((span, name) for name, spans in versions.items() for span in ordered(spans)),
        key=lambda one: (one[0].start, one[0].end),
    )
    return [
        Place(
            note=note,
            start=min(span.start for span, _ in group),
            end=max(span.end for span, _ in group),
            versions={
                name: tuple(ordered(span for span, by in group if by == name)) for name in versions
            },
        )
        for group in _touching(every)
    ]


def _touching(spans: Sequence[tuple[Span, str]]) -> Iterator[list[tuple[Span, str]]]:
    group: list[tuple[Span, str]] = []
    reach = 0
    for one in spans:
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
