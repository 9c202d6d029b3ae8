"""A tagger for identifiers out of an encoder: learned on invented notes, measured on another world,
written in 8 bits."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from residency.core.files import file_digest, whole_folder, write_json
from residency.core.progress import Silent, Tracker
from residency.core.types import Example, Span, Spans
from residency.deid.dates import dates_of
from residency.deid.engine import normal_form
from residency.deid.find import Finding, resolve
from residency.deid.names.lists import name_data
from residency.deid.options import Deid
from residency.deid.rules import rules_of
from residency.deid.tagger import (
    FILE,
    GRAPH,
    KIND_OF,
    LABELS,
    SCHEMA,
    TOKENIZER,
    IdentifierTagger,
    Measured,
    ReviewedTagger,
    Tagged,
    TaggerCard,
    sealed,
)
from residency.deid.view import View
from residency.models import base as bases
from residency.synth import identified
from residency.synth.hospital_notes import notes as hospital_notes
from residency.synth.hospital_notes import world
from residency.synth.marked import read_marked
from residency.synth.redrawn import Names
from residency.tasks.card import Card

LANGUAGES = ("vi", "zh", "en")
LAYERS, VOCABULARY = 8, 20_000
NEGATIVE, WRITTEN = 0.18, 0.62
"""Share of pieces that are lines of real text without identifiers, where such are given, and that
come from notes written one by one; the others come from templates."""
BATCH = 16
MASK, REVIEW = 0.7, 0.4
"""Thresholds where no notes were given to choose them on."""
PRECISION, QUEUE = 0.92, 1.6
"""What the thresholds are chosen for: findings that touch an identifier, and places a note that
wait for a person."""
NOTES = 60
"""Of a world, in each language."""
STAGE = {
    "method": {"kind": "freeze", "last": "all"},
    "lexical": "off",
    "learning_rate": 3e-4,
    "head_learning_rate": 2e-3,
    "stop": None,
}
"""Twice the rate that the 470 MB base is given: it has a third of its weights, and few steps."""
MIXED = 12
"""Of so many pieces one is two, mostly in two languages."""


def card() -> Card:
    """What the tagger is trained to mark."""
    labels = [{"name": label} for label in LABELS]
    return Card.model_validate({"name": "identifiers", "family": "spans", "labels": labels})


def examples(
    count: int, seed: int, negatives: Path | None, languages: Sequence[str] = LANGUAGES
) -> list[Example]:
    """``count`` pieces in all languages alike, in random order."""
    rng = random.Random(seed)
    found: list[Example] = []
    real = identified.lines(negatives, languages) if negatives else {}
    for lang in languages:
        each = count // len(languages)
        plain = real.get(lang, [])
        plain = rng.sample(plain, min(len(plain), round(each * NEGATIVE)))
        found += [_example(identified.Piece(text, ()), lang) for text in plain]
        told, names = round(each * WRITTEN), names_of(lang)
        made = identified.redrawn(lang, told, seed, names, identified.authors(lang))
        found += [_example(piece, lang) for piece in made]
        made = identified.pieces(lang, each - len(plain) - told, seed)
        found += [_example(piece, lang) for piece in made]
    rng.shuffle(found)
    for number in range(1, len(found), MIXED):  # a note in two languages
        found[number] = _joined(found[number - 1], found[number])
    return [
        Example(id=f"{number}", task="identifiers", input=one.input, gold=one.gold, lang=one.lang)
        for number, one in enumerate(found)
    ]


def names_of(lang: str) -> Names:
    """What people and places are called in redrawn notes: the names of the training world, and of
    the rules."""
    made, listed = world(lang, identified.FOLDER), name_data(lang)
    slots = made["slots"]
    places = (*made["streets"], *made["wards"], *made["places"], *slots["town"]["values"])
    working = (slots[one]["values"] for one in ("clinic", "employer", "school", "pharmacy"))
    elements = listed.get("elements", ())
    pairs = (f"{one}{elements[-at]}" for at, one in enumerate(elements, 1))
    return Names(
        families=(*made["families"] * 3, *listed["families"], *listed.get("more_families", ())),
        given=(
            *(*made["male"], *made["female"], *listed["male"], *listed["female"]),
            *(*listed.get("more_given", ()), *listed.get("given", ())),
        ),
        middles=made.get("syllables")
        or (
            *made.get("middles", ()),
            *made.get("female_middles", ()),
            *listed.get("more_middles", ()),
        ),
        whole=(*made["full_names"]["male"], *made["full_names"]["female"], *elements, *pairs),
        places=places,
        organisations=(*made["organisations"], *(one for values in working for one in values)),
        months=made.get("months", ()),
        days=DAYS.get(lang, ()),
    )


DAYS = {"en": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")}


def _example(piece: identified.Piece, lang: str) -> Example:
    spans = [
        Span(start=start, end=end, label=KIND_OF[kind], quote=piece.text[start:end])
        for start, end, kind in piece.marks
        if kind in KIND_OF
    ]
    return Example(id="", task="identifiers", input=piece.text, gold=Spans(tuple(spans)), lang=lang)


def _joined(one: Example, other: Example) -> Example:
    """Two pieces, one behind the other."""
    assert isinstance(one.gold, Spans) and isinstance(other.gold, Spans)
    by = len(one.input) + 1
    moved = [
        Span(start=s.start + by, end=s.end + by, label=s.label, quote=s.quote)
        for s in other.gold.spans
    ]
    gold = Spans((*one.gold.spans, *moved))
    text = f"{one.input} {other.input}"
    return Example(id="", task="identifiers", input=text, gold=gold, lang=one.lang)


def small_base(base: str, texts: Sequence[str], folder: Path) -> bases.Base:
    """The base with fewer layers and pieces, made once."""
    from residency.models.trim import trim

    if not folder.is_dir():
        found = bases.resolve(bases.BaseModelSettings(id=base), Path())
        trim(Path(found.path), folder, texts, LAYERS, VOCABULARY)
    return bases.resolve(bases.BaseModelSettings(id=str(folder), window=320), Path())


def train(
    base: str,
    work: Path,
    *,
    steps: int,
    seed: int = 0,
    negatives: Path | None = None,
    tracker: Tracker | None = None,
) -> Path:
    """Train a tagger in ``work``, going on where it was; the folder of its artefact.

    ``negatives``: a folder with files ``vi*.txt``, ``zh*.txt``, ``en*.txt`` of real text without
    identifiers, a line each.
    """
    from residency.train.job import TrainingJob
    from residency.train.stage import Stage
    from residency.train.trainer import train as train_stage

    tracker, out = tracker or Silent(), work / "artefact"
    if not (work / "base").is_dir():  # what is wrong with it is said before notes are written
        bases.resolve(bases.BaseModelSettings(id=base), Path(), weights=False)
    tracker.start("writing invented notes")
    rows = examples(steps * BATCH, seed, negatives)
    real = identified.lines(negatives, LANGUAGES) if negatives else {}
    texts = (*(row.input for row in rows), *(line for lines in real.values() for line in lines))
    small = small_base(base, texts, work / "base")
    tracker.end(f"{len(rows):,} pieces")
    out.mkdir(parents=True, exist_ok=True)
    tracker.start("training the tagger")
    result, _ = train_stage(
        TrainingJob(
            stage=Stage.model_validate(STAGE | {"steps": steps, "batch": BATCH}),
            name="tagger",
            base=small,
            card=card(),
            train=rows,
            dev=(),
            seed=seed,
            profile="synthetic",
            work=work / "checkpoints",
            out=out,
            progress=tracker.update,
        )
    )
    tracker.end(f"{result.seconds / 60:.0f} minutes")
    return out


def package(artefact: Path, out: Path, *, steps: int, seed: int) -> TaggerCard:
    """Write a trained tagger in 8 bits to a new folder."""
    from residency.export.onnx import needs, write_graph, write_int8
    from residency.models import artefact as artefacts

    needs()
    found, model, tokeniser = artefacts.load(artefact)
    with whole_folder(out) as partial:
        write_graph(model, partial / "fp32.onnx")
        write_int8(partial / "fp32.onnx", partial / GRAPH)
        (partial / "fp32.onnx").unlink()
        for name in (TOKENIZER, "LICENSE"):
            if (Path(found.base.path) / name).is_file():
                shutil.copyfile(Path(found.base.path) / name, partial / name)
        written = sealed(
            TaggerCard(
                schema=SCHEMA,
                labels=LABELS,
                window=tokeniser.longest,
                mask=MASK,
                review=REVIEW,
                files={name: file_digest(partial / name) for name in (GRAPH, TOKENIZER)},
                layers=model.config.num_hidden_layers,
                pieces=model.config.vocab_size,
                steps=steps,
                seed=seed,
            )
        )
        write_json(partial / FILE, written)
    return written


class Case(NamedTuple):
    """A note whose identifiers are known, and what rules and tagger say of it."""

    text: str
    places: list[tuple[int, int]]
    rules: list[Finding]
    tagged: list[Tagged]


class Remembered:
    """A tagger that was asked before."""

    def __init__(self, card: TaggerCard, cases: Sequence[Case]) -> None:
        self.card, self.tagged = card, {case.text: case.tagged for case in cases}

    def tag(self, text: str, least: float) -> list[Tagged]:
        """What was tagged in a text."""
        return [one for one in self.tagged[text] if one.probability >= least]


def measure(folder: Path, notes: Path, *, thresholds: bool = False) -> TaggerCard:
    """Write into a tagger's card what rules and tagger find in notes that it was not trained on: a
    folder with ``vi.txt``, ``zh.txt``, ``en.txt`` (``synth.marked``), or a world.

    ``thresholds``: choose first on these notes from where on a place is masked, and from where on
    it waits for a person.
    """
    tagger = IdentifierTagger(folder)
    cases = {lang: _cases(tagger, notes, lang) for lang in LANGUAGES}
    changed = tagger.card
    if thresholds:
        changed = chosen(changed, list(cases.values()))
    measured = tuple(
        Measured(lang, len(found), *score(changed, found)[:2], score(changed, found, False)[0])
        for lang, found in cases.items()
    )
    changed = sealed(msgspec.structs.replace(changed, measured=measured))
    write_json(folder / FILE, changed)
    return changed


def chosen(card: TaggerCard, languages: Sequence[Sequence[Case]]) -> TaggerCard:
    """A card with the lowest threshold at which every language has PRECISION, and the lowest below
    it at which in none more than QUEUE places a note wait."""
    replace = msgspec.structs.replace
    steps = [number / 100 for number in range(5, 100, 5)]
    for mask in (*steps[5:], 0.97, 0.98, 0.99):
        tried = replace(card, mask=mask, review=mask)
        if min(score(tried, cases)[1] for cases in languages) >= PRECISION:
            break
    for review in steps:
        found = replace(card, mask=mask, review=min(review, mask))
        if max(score(found, cases)[2] for cases in languages) <= QUEUE:
            break
    return found


def score(
    card: TaggerCard, cases: Sequence[Case], tagger: bool = True
) -> tuple[float, float, float]:
    """Identifiers of which every letter is covered, findings that touch one, places a note that
    wait."""
    marks = hit = found = right = waiting = 0
    reviewed = ReviewedTagger(Remembered(card, cases), Deid())  # type: ignore[arg-type]
    for case in cases:
        both, open_ = reviewed.add("", case.text, case.rules) if tagger else (case.rules, ())
        marks, waiting, found = marks + len(case.places), waiting + len(open_), found + len(both)
        hit += sum(_covered(case.text, at, both) for at in case.places)
        right += sum(any(a < one.end and one.start < b for a, b in case.places) for one in both)
    return hit / max(marks, 1), right / max(found, 1), waiting / max(len(cases), 1)


def _cases(tagger: IdentifierTagger, folder: Path, lang: str) -> list[Case]:
    texts: list[tuple[str, list[tuple[int, int]]]] = []
    if (folder / f"{lang}.txt").is_file():
        written = read_marked((folder / f"{lang}.txt").read_text("utf-8"))
        texts += [(one.text, [(a, b) for a, b, kind in one.marks if kind]) for one in written]
    else:
        for planted in hospital_notes(lang, NOTES, 0, folder):
            edits = normal_form(planted.note.text)
            moved = (edits.project(mark.start, mark.end) for mark in planted.marks)
            texts.append((edits.apply(planted.note.text), [at for at in moved if at]))
    found = list[Case]()
    for text, places in texts:
        view = View(text, lang)
        rules = resolve(rules_of(lang).search(view, dates_of(view)))
        found.append(Case(view.text, places, rules, tagger.tag(view.text, 0.05)))
    return found


def _covered(text: str, place: tuple[int, int], found: Sequence[Finding]) -> bool:
    inside = {i for one in found for i in range(one.start, one.end)}
    return all(i in inside for i in range(*place) if text[i].isalnum())
