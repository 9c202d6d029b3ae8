"""PubMedQA as it is published."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from residency.core.errors import DataError
from residency.core.types import Labels
from residency.corpus.formats.pubmedqa import PubMedQa
from residency.corpus.load import load
from residency.tasks.card import load_card
from residency.tasks.examples import examples

ITEM = {
    "QUESTION": "Does rest help?",
    "CONTEXTS": ["Forty people rested.", "Thirty got well."],
    "final_decision": "yes",
}


def test_an_abstract_is_asked_for_yes_no_or_maybe(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text(
        json.dumps({"11": ITEM, "12": ITEM | {"CONTEXTS": 5}}), "utf-8"
    )
    corpus = load(
        PubMedQa(format="pubmedqa", test="q.json", profile="public", max_rejected=0.9),
        "x",
        tmp_path,
        0,
    )
    (one,) = examples(corpus.notes, load_card("pubmedqa"))
    assert (one.id, one.gold) == ("11", Labels(labels=("yes",)))
    assert one.input.startswith(
        "Forty people rested.\nThirty got well.\n\nQuestion: Does rest help?"
    )
    assert one.input.endswith("Answer with one of: yes, no, maybe.")
    assert [entry.reason for entry in corpus.ledger if entry.status == "rejected"] == [
        "question, contexts or decision are not text"
    ]


def test_another_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "q.json").write_text("[]", "utf-8")
    with pytest.raises(
        DataError, match=r"q.json: is no PubMedQA file .*; it holds one object, PMID -> question"
    ):
        load(PubMedQa(format="pubmedqa", test="q.json"), "x", tmp_path, 0)
