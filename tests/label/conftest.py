"""A recipe with a section label, on a few invented notes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from residency.core.types import Note, Span
from residency.corpus.write import write_jsonl
from residency.recipe import Recipe

TEXTS = (
    "Sốt cao 😀 ba ngày, nghi viêm phổi.\r\nCho amoxicillin.",
    "Tiền sử tăng huyết áp (NFD).",
    "患者发热三天，诊断为肺炎，予阿莫西林。",
    "Fever for three days; pneumonia; amoxicillin 500 mg.",
)


def spans(text: str, **labels: str) -> tuple[Span, ...]:
    """Spans where the given quotes stand."""
    return tuple(
        Span(start=text.index(quote), end=text.index(quote) + len(quote), label=label, quote=quote)
        for label, quote in labels.items()
    )


@pytest.fixture
def notes() -> list[Note]:
    return [
        Note(
            id=f"n{number}",
            text=text,
            profile="synthetic",
            group=f"p{number}",
            origin="synthetic:test",
        )
        for number, text in enumerate(TEXTS)
    ]


@pytest.fixture
def recipe(tmp_path: Path, notes: list[Note]) -> Callable[..., Recipe]:
    """Makes the recipe; what is given goes into its section ``label``."""
    write_jsonl(notes, tmp_path / "notes.jsonl")

    def made(**label: Any) -> Recipe:
        section = {"data": "notes", "via": "files", "bootstrap": 50, **label}
        value = {
            "schema": 1,
            "name": "ward",
            "seed": 3,
            "data": {"notes": {"format": "jsonl", "path": "notes.jsonl", "profile": "synthetic"}},
            "tasks": [{"card": "clinical", "data": "notes"}],
            "label": section,
        }
        return Recipe.from_mapping(value, tmp_path)

    return made


def give_back(
    folder: Path, name: str, said: dict[str, Sequence[Span]], round: str = "label", **more: Any
) -> None:
    """Fill an annotator's file as they would: only the notes that they have done."""
    rows = [
        msgspec.json.decode(line)
        for line in (folder / round / "out" / f"{name}.jsonl").read_bytes().splitlines()
    ]
    for row in rows:
        if row["id"] in said:
            marked = [
                {"start": s.start, "end": s.end, "label": s.label, "text": s.quote}
                for s in said[row["id"]]
            ]
            for entity, span in zip(marked, said[row["id"]], strict=True):
                if span.attributes:
                    entity["attributes"] = list(span.attributes)
            row |= {"entities": marked, **more}
    back = folder / round / "back" / f"{name}.jsonl"
    back.parent.mkdir(parents=True, exist_ok=True)
    back.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
