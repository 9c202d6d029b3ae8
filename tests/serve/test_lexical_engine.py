"""A CRF is served as other classifiers are, from a folder without a base."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import UserError
from residency.core.types import Example, Labels, Span, Spans
from residency.models import crf
from residency.models.adapters.crf import Crf
from residency.serve.launch import weights_bytes
from residency.serve.settings import Serve
from residency.tasks.card import Card, Label

DRUG = Card(name="drugs", family="spans", labels=(Label(name="drug"),))
SMOKES = Card(name="smokes", family="labels", labels=(Label(name="yes"), Label(name="no")))


def artefact(folder: Path, card: Card, rows: list[tuple[str, Any]]) -> Path:
    examples = [
        Example(id=str(at), task=card.name, input=text, gold=gold)
        for at, (text, gold) in enumerate(rows)
    ]
    folder.mkdir()
    crf.fit(examples, card, Crf(), folder)
    crf.save(folder, card, Crf(), "synthetic")
    return folder


@pytest.fixture
def served(tmp_path: Path) -> dict[str, Path]:
    marked = [
        (f"dùng {name} nhé", Spans(spans=(Span(start=5, end=5 + len(name), label="drug"),)))
        for name in ("aspirin", "metformin", "insulin", "digoxin")
    ]
    chosen = [("hút thuốc", Labels(labels=("yes",))), ("không hút", Labels(labels=("no",)))] * 3
    return {
        "drugs": artefact(tmp_path / "drugs", DRUG, marked),
        "smokes": artefact(tmp_path / "smokes", SMOKES, chosen),
    }


def test_spans_and_labels_are_answered_and_the_fixed_question_still_is(
    served: dict[str, Path],
) -> None:
    from residency.serve.engines.in_process import load

    engines = {name: load(path, name) for name, path in served.items()}
    text = "dùng heparin nhé"

    async def ask() -> None:
        found = await engines["drugs"].classify(text)
        assert isinstance(found.answer, Spans)
        assert [one.quote for one in found.answer.spans] == ["heparin"]
        assert engines["drugs"].reader.count(text) == found.tokens == 3
        found = await engines["smokes"].classify("không hút")
        assert isinstance(found.answer, Labels) and found.answer.labels == ("no",)
        for engine in engines.values():
            assert await engine.probe()
            await engine.close()

    asyncio.run(ask())
    about = engines["drugs"].served
    assert (about.base, about.method, about.window) == ("none", "crf", 0)


def test_its_size_is_that_of_its_own_files(served: dict[str, Path]) -> None:
    sizes = [(served["drugs"] / name).stat().st_size for name in (crf.WEIGHTS, crf.FEATURES)]
    assert weights_bytes(served["drugs"]) == sum(sizes)


def test_other_numbers_are_refused(served: dict[str, Path]) -> None:
    from residency.serve.engines.in_process import load

    with pytest.raises(UserError, match=r"dtype: .* \(it is no neural network\)"):
        load(served["drugs"], "drugs", Serve.model_validate({"dtype": "bf16"}))


def test_a_model_that_learned_from_what_was_erased_is_refused_or_says_so_in_every_answer(
    served: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    from residency.models import erased
    from residency.serve.launch import assemble, load
    from residency.serve.records.monitoring import Log

    erased.mark(served["drugs"], erased.Erasure(at="2026-11-30T00:00:00Z", rows=2, patient="x"))
    plain = Serve.model_validate({"logs": {"folder": str(tmp_path / "serve")}})
    with pytest.raises(UserError, match=r"drugs: 2 notes of 1 patient .* set erased=announce"):
        load(served["drugs"], "drugs", plain)
    load(served["smokes"], "smokes", plain)
    settings = plain.model_copy(update={"erased": "announce"})
    engine = load(served["drugs"], "drugs", settings)
    said: list[str] = []
    monkeypatch.setattr(Log, "write", lambda self, event, *rest, **more: said.append(event))
    client = TestClient(assemble(settings, {"drugs": engine}, Log(), None))
    key = (tmp_path / "serve/key").read_text("utf-8").strip()
    headers = {"Authorization": f"Bearer {key}"}
    listed = client.get("/v1/models", headers=headers).json()["data"][0]
    assert "2 notes of 1 patient" in listed["erased"]
    answer = client.post("/extract", json={"text": "dùng heparin nhé"}, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["x-residency-erased"] == listed["erased"]
    assert "erased-model" in said
