"""The real corpora are read whole. The numbers were counted apart from this code, with awk, grep
and a plain script."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import DataError
from residency.core.part import parse
from residency.core.types import Note
from residency.corpus.load import Corpus, Data, load

SHARED = Path(os.environ.get("RESIDENCY_SHARED_DATA", Path(__file__).parents[2] / "../shared/data"))
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(
        not SHARED.is_dir(),
        reason=f"the real corpora are not at {SHARED}; set RESIDENCY_SHARED_DATA",
    ),
]

BRAT = {"format": "brat", "path": "vi/vietbioner/brat_annotator_a"}
CMEDQANER = {
    "format": "jsonl",
    "train": "zh/cmedqaner/train.json",
    "test": "zh/cmedqaner/dev.json",
    "fields": {"entities": "mention_data", "start": "offset", "label": "type", "quote": "mention"},
}


def read(**settings: Any) -> Corpus:
    corpus = load(parse(Data, settings, "data.x"), "x", SHARED, 7)
    for note in corpus.notes:
        assert all(span.quote == note.text[span.start : span.end] for span in note.spans)
    return corpus


def ledger(corpus: Corpus) -> dict[tuple[str, str], tuple[int, int]]:
    """(status, reason) -> (rows, spans concerned)"""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for entry in corpus.ledger:
        rows, spans = found.get((entry.status, entry.reason), (0, 0))
        found[entry.status, entry.reason] = (rows + 1, spans + entry.count)
    return found


def labels(notes: tuple[Note, ...] | list[Note]) -> Counter[str]:
    return Counter(span.label for note in notes for span in note.spans)


def test_vietbioner_sentences_with_tags_that_have_no_start():
    corpus = read(
        format="conll", train="vi/vietbioner/train.txt", test="vi/vietbioner/dev.txt", stop=0
    )
    assert [len(corpus.part(part)) for part in ("train", "dev", "test")] == [706, 0, 300]
    # Runs of one tag, by awk.
    assert [labels(corpus.part(part)).total() for part in ("train", "test")] == [1409, 639]
    assert ledger(corpus) == {("kept", ""): (1006, 1006)}
    # 33 sentences of the authors' dev file are in their train file too.
    assert "33 texts" in corpus.split.how


def test_vietbioner_brat_has_broken_spans_in_every_text():
    with pytest.raises(DataError, match=r"28 of 28 rows .* 28 x span is discontinuous"):
        read(**BRAT)


@pytest.mark.parametrize(
    ("settings", "spans"),
    [({"on_bad_span": "drop_span"}, 1462 - 116), ({"join_lines": True}, 1462)],
)
def test_vietbioner_brat_is_read_exactly_with_either_remedy(settings: dict[str, Any], spans: int):
    corpus = read(**BRAT, **settings)
    assert len(corpus.notes) == 28
    assert labels(corpus.notes).total() == spans
    assert "AnnotatorNotes" not in labels(corpus.notes)
    # 12 texts have CRLF; in 9 of them the offsets count it as one character, in 3 as two.
    assert sum("\r\n" in note.text for note in corpus.notes) == 12
    assert sum("CRLF" in entry.reason for entry in corpus.ledger) == 9


def test_joined_spans_quote_what_the_annotation_files_quote():
    corpus = read(**BRAT, join_lines=True)
    for note in corpus.notes:
        lines = (SHARED / BRAT["path"] / f"{note.id}.ann").read_text("utf-8").split("\n")
        quotes = [
            match[1] for line in lines if (match := re.match(r"T\d+\t\S+ [\d ;]+\t(.*)", line))
        ]
        assert Counter(" ".join(span.quote.split()) for span in note.spans) == Counter(
            " ".join(q.split()) for q in quotes
        )


def test_ncbi_disease_column_files():
    corpus = read(
        format="conll", train="en/ncbi_disease/train.tsv", test="en/ncbi_disease/devel.tsv", stop=0
    )
    assert [len(corpus.part(part)) for part in ("train", "test")] == [5432, 923]
    assert [labels(corpus.part(part)).total() for part in ("train", "test")] == [5145, 787]
    assert ledger(corpus) == {("kept", ""): (6355, 6355)}


@pytest.mark.parametrize(
    "settings",
    [
        {"format": "brat", "test": "en/ncbi_disease/brat_devel"},
        {"format": "pubtator", "test": "en/ncbi_disease/NCBIdevelopset_corpus.txt"},
    ],
)
def test_ncbi_disease_documents_are_the_same_in_brat_and_pubtator(settings: dict[str, Any]):
    corpus = read(**settings)
    assert len(corpus.notes) == 100
    expected = {
        "SpecificDisease": 412,
        "Modifier": 214,
        "DiseaseClass": 126,
        "CompositeMention": 35,
    }
    assert labels(corpus.notes) == expected
    assert all(span.code for note in corpus.notes for span in note.spans)
    assert ledger(corpus) == {("kept", ""): (100, 100)}


def test_cmedqaner_loses_one_row_in_which_fifteen_offsets_are_one_too_far():
    corpus = read(**CMEDQANER, stop=0)
    # Of 82 + 4 misaligned mentions 67 + 4 differ by case only; the other 15 are in row 367 of
    # train, which has 64.
    assert [len(corpus.part(part)) for part in ("train", "test")] == [1672, 175]
    assert [labels(corpus.part(part)).total() for part in ("train", "test")] == [12625 - 64, 1035]
    assert ledger(corpus) == {
        ("kept", ""): (1805, 1805),
        ("repaired", "quote differs from the text by case only"): (42, 71),
        ("rejected", "quote of a span stands in several places, not at its offsets"): (1, 5),
    }
    assert [entry.line for entry in corpus.ledger if entry.status == "rejected"] == [367]


def test_cmedqaner_keeps_the_ten_of_them_whose_quote_stands_once_where_the_others_are_dropped():
    corpus = read(**CMEDQANER, stop=0, on_bad_span="drop_span")
    assert labels(corpus.part("train")).total() == 12625 - 5
    row = next(note for note in corpus.notes if note.id == "train-367")
    assert len(row.spans) == 64 - 5


def test_a_label_studio_export_of_several_projects():
    corpus = read(
        format="label_studio", path="annotation/label_studio_export_pt.json", group="external_id"
    )
    assert len(corpus.notes) == 13
    assert labels(corpus.notes).total() == 39
    assert (
        len({note.group for note in corpus.notes}) == 10
    )  # three documents were given to two annotators
    assert ledger(corpus) == {
        ("kept", ""): (6, 6),
        ("repaired", "blanks at the edges of a span trimmed"): (7, 9),
    }


def test_a_json_list_with_spans_last_first():
    fields = {
        "text": "full_text",
        "entities": "spans",
        "start": "start_position",
        "end": "end_position",
        "label": "entity_type",
        "quote": "entity_value",
    }
    corpus = read(
        format="jsonl",
        path="en/pii_synthetic/synth_dataset_v2.json",
        fields=fields,
        profile="synthetic",
    )
    assert len(corpus.notes) == 1500
    assert labels(corpus.notes).total() == 2863
    assert all(
        list(note.spans) == sorted(note.spans, key=lambda span: span.start) for note in corpus.notes
    )


def test_mts_dialog_has_a_label_for_each_dialogue():
    files = [f"en/mts_dialog/MTS-Dialog-{part}Set.csv" for part in ("Training", "Validation")]
    corpus = read(
        format="csv",
        train=files[0],
        test=files[1],
        stop=0,
        columns={"text": "dialogue", "labels": "section_header"},
    )
    assert [len(corpus.part(part)) for part in ("train", "test")] == [1201, 100]
    assert len({label for note in corpus.notes for label in note.labels}) == 20


def test_acrdraid_with_its_dictionary_and_pubmedqa_as_published():
    corpus = read(
        format="acronyms",
        train="vi/acrdraid/train.json",
        test="vi/acrdraid/dev.json",
        dictionary="dictionary.json",
        stop=0,
    )
    assert [len(corpus.part(part)) for part in ("train", "test")] == [4000, 523]
    assert all(note.fields["expansion"] in note.choices for note in corpus.notes)
    corpus = read(format="pubmedqa", path="en/pubmedqa/ori_pqal_train500.json")
    # grep -o '"final_decision": "[a-z]*"' | sort | uniq -c
    assert Counter(note.fields["decision"] for note in corpus.notes) == {
        "yes": 276,
        "no": 169,
        "maybe": 55,
    }
