"""Notes a second of residency predict against a transformers pipeline in a loop, equal answers, and
memory by file size.

A model is tuned on invented notes (Vietnamese, Chinese, English) and answers other notes of the
same generator:

  ours   batch.predict_file, what residency predict calls: the whole file, loading the model and writing included
  plain  transformers.pipeline("token-classification"), one note per call, on the same weights in the Hugging Face layout;
         the first --sample notes, loading the model not included

Both in processes of their own, in turn. The pipeline's tags, read off the same tokens, are decoded
as ours are, and compared note by note; notes longer than the model's window are left out of that
(the pipeline cuts them). Where the likeliest tags are no legal sequence, ours takes the best legal
one: those notes are counted apart.

``--kind sentences`` takes the notes' sentences instead: short inputs, where a call's fixed costs
weigh most.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from _common import TINY, child, parser, peak_memory_mb, report, rotated, run, say
from residency.core.types import Note
from residency.corpus.write import write_jsonl
from residency.locale.tokenise import sentences
from residency.synth.clinical_notes import records

LANGUAGES = ("vi", "zh", "en")
SYSTEMS = ("ours", "plain")
WARM_UP = 10
"""Notes that the pipeline answers before its time is taken."""


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--base", default=TINY, help="encoder to tune (default bundled:tiny-encoder)"
    )
    options.add_argument("--kind", choices=("notes", "sentences"), default="notes")
    options.add_argument(
        "--notes", type=int, default=10_000, help="notes that ours answers (default 10000)"
    )
    options.add_argument(
        "--sample", type=int, default=500, help="notes that the pipeline answers (default 500)"
    )
    options.add_argument("--runs", type=int, default=5, help="rounds (default 5)")
    options.add_argument(
        "--memory", type=int, nargs="*", default=[1_000, 10_000, 50_000], help="file sizes to watch"
    )
    options.add_argument(
        "--train", type=int, default=300, help="invented notes to tune on (default 300)"
    )
    options.add_argument("--epochs", type=float, default=8, help="passes over them (default 8)")
    options.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        what, *paths = given.child
        print(json.dumps(CHILDREN[what](*map(Path, paths))))
        return
    if given.quick:
        given.notes, given.sample, given.runs, given.memory, given.train, given.epochs = (
            60,
            20,
            2,
            [30, 60],
            12,
            1,
        )
    with tempfile.TemporaryDirectory() as work:
        compare(given, Path(work))


def compare(given: argparse.Namespace, work: Path) -> None:
    """Tune, time both in turn, compare the answers, watch the memory."""
    artefact = tune(given, work)
    say("model tuned")
    input, sample = work / "notes.jsonl", work / "sample.jsonl"
    make = invented if given.kind == "notes" else invented_sentences
    write_jsonl(make(given.notes), input)
    write_jsonl(make(given.sample), sample)
    calls: dict[str, list[str | Path]] = {
        "ours": ["ours", artefact, input, work / "ours.jsonl"],
        "plain": ["plain", work / "hf", sample, work / "plain.jsonl"],
    }
    rounds: list[dict[str, float]] = []
    for turn in range(given.runs):
        rates = {}
        for system in rotated(SYSTEMS, turn):
            found, _ = child([__file__, "--child", *calls[system]], given.threads)
            rates[system] = found["notes"] / found["seconds"]
            say(f"round {turn + 1} {system}: {rates[system]:.0f} notes/s")
        rounds.append(rates)
    equal = same_answers(artefact, sample, work / "ours.jsonl", work / "plain.jsonl")
    memory = {}
    for size in given.memory:
        write_jsonl(make(size), input)
        found, _ = child(
            [__file__, "--child", "ours", artefact, input, work / "ours.jsonl"], given.threads
        )
        memory[size] = found["memory_mb"]
        say(f"{size} notes: {memory[size]:.0f} MB")
    ratios = [one["ours"] / one["plain"] for one in rounds]
    rows = [
        ["notes/s, ours (median)", f"{median(one['ours'] for one in rounds):,.0f}"],
        ["notes/s, pipeline (median)", f"{median(one['plain'] for one in rounds):,.0f}"],
        [
            "ours / pipeline (median, range)",
            f"{median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})",
        ],
        ["notes with equal answers", f"{equal['equal']} of {equal['compared']}"],
        [
            "... where the likeliest tags are legal",
            f"{equal['equal_where_legal']} of {equal['legal']}",
        ],
        ["spans in ours", f"{equal['spans']:,}"],
        *([f"peak memory, {size:,} notes", f"{mb:,.0f} MB"] for size, mb in memory.items()),
    ]
    characters = sum(len(note.text) for note in itertools.islice(make(given.notes), 1000)) / min(
        given.notes, 1000
    )
    report(
        "predict" if given.kind == "notes" else "predict-sentences",
        given,
        ("what", "measured"),
        rows,
        rounds=rounds,
        answers=equal,
        memory_mb=memory,
        mean_characters=round(characters),
    )


def invented(count: int, seed: int = 90_000) -> Iterator[Note]:
    """Notes in turn Vietnamese, Chinese and English."""
    each = [records(lang, -(-count // len(LANGUAGES)), seed=seed) for lang in LANGUAGES]
    return itertools.islice(itertools.chain.from_iterable(zip(*each, strict=True)), count)


def invented_sentences(count: int) -> Iterator[Note]:
    """The sentences of such notes, in turn."""
    notes = invented(count)
    pieces = (
        Note(
            id=f"{note.lang}-{note.id}-{i}",
            text=note.text[start:end],
            profile="synthetic",
            lang=note.lang,
        )
        for note in notes
        for i, (start, end) in enumerate(sentences(note.text, note.lang))
    )
    return itertools.islice(pieces, count)


def tune(given: argparse.Namespace, work: Path) -> Path:
    """The tuned artefact, and beside it the same model as ``save_pretrained`` writes it."""
    from transformers.utils.logging import disable_progress_bar

    import residency
    from residency.models.artefact import load
    from residency.recipe import Recipe
    from residency.workflows.finished import artefact_of

    write_jsonl(invented(given.train, seed=80_000), work / "train.jsonl")
    test = (
        msgspec.structs.replace(note, id=f"test-{note.id}") for note in invented(6, seed=80_001)
    )
    write_jsonl(test, work / "test.jsonl")
    value: dict[str, Any] = {
        "schema": 1,
        "name": "predict",
        "base": given.base
        if given.base.startswith("bundled:")
        else str(Path(given.base).resolve()),
        "data": {
            "notes": {
                "format": "jsonl",
                "train": "train.jsonl",
                "test": "test.jsonl",
                "stop": 0,
                "profile": "synthetic",
            }
        },
        "tasks": [{"card": "clinical", "data": "notes"}],
        "stages": [{"method": {"kind": "full"}, "epochs": given.epochs, "stop": None}],
        "evaluate": {"baselines": [], "bootstrap": 0},
    }
    artefact = artefact_of(
        residency.run(Recipe.from_mapping(value, root=work), work / "runs").folder
    )
    disable_progress_bar()
    _, model, tokeniser = load(artefact)
    model.save_pretrained(work / "hf")
    tokeniser.tokenizer.model_max_length = (
        tokeniser.room + len(tokeniser.prefix) + len(tokeniser.suffix)
    )
    tokeniser.tokenizer.save_pretrained(work / "hf")
    return artefact


def ours(artefact: Path, input: Path, output: Path) -> dict[str, Any]:
    """What ``residency predict`` does."""
    from residency.workflows.predict import predict_file

    output.unlink(missing_ok=True)
    started = time.perf_counter()
    notes = predict_file(artefact, input, output)
    return {"notes": notes, "seconds": time.perf_counter() - started, "memory_mb": peak_memory_mb()}


def plain(model: Path, input: Path, output: Path) -> dict[str, Any]:
    """What a short script does."""
    import transformers
    from transformers.utils import logging

    logging.set_verbosity_error()
    texts = [json.loads(line)["text"] for line in input.read_text("utf-8").splitlines()]
    tagger = transformers.pipeline(
        "token-classification", model=str(model), aggregation_strategy="none", ignore_labels=[]
    )
    for text in texts[:WARM_UP]:
        tagger(text)
    started = time.perf_counter()
    answers = [tagger(text) for text in texts]
    seconds = time.perf_counter() - started
    with output.open("w", encoding="utf-8") as file:
        for answer in answers:
            file.write(json.dumps([token["entity"] for token in answer]) + "\n")
    return {"notes": len(texts), "seconds": seconds}


CHILDREN = {"ours": ours, "plain": plain}


def same_answers(artefact: Path, sample: Path, ours: Path, plain: Path) -> dict[str, int]:
    """How many notes of the sample have the same set of spans from both."""
    import numpy as np

    from residency.models.artefact import load
    from residency.tasks.bio import decode, legal, tag_names

    read, _, tokeniser = load(artefact)
    labels = read.task().names
    number = {name: i for i, name in enumerate(tag_names(labels))}
    counts = dict.fromkeys(
        ("compared", "equal", "legal", "equal_where_legal", "longer_than_window", "spans"), 0
    )
    with sample.open("rb") as notes, ours.open("rb") as ours_lines, plain.open("rb") as plain_lines:
        for note, mine, theirs in zip(notes, ours_lines, plain_lines, strict=False):
            text, entities, tags = (
                json.loads(note)["text"],
                json.loads(mine)["entities"],
                json.loads(theirs),
            )
            tokens = tokeniser([text])[0]
            if len(tokens.ids) > tokeniser.room:
                counts["longer_than_window"] += 1
                continue
            if len(tags) != len(tokens.ids):
                raise ValueError(f"the pipeline gave {len(tags)} tags for {len(tokens.ids)} tokens")
            found = [number[tags[first]] for first in tokens.firsts]
            spans = {
                (span.start, span.end, span.label)
                for span in decode(text, found, tokens.slots, labels)
            }
            equal = spans == {
                (entity["start"], entity["end"], entity["label"]) for entity in entities
            }
            lawful = legal(np.array(found))
            counts["compared"] += 1
            counts["equal"] += equal
            counts["legal"] += lawful
            counts["equal_where_legal"] += equal and lawful
            counts["spans"] += len(entities)
    return counts


if __name__ == "__main__":
    run(main)
