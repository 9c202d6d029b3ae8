"""Small results with every verdict, for tests that look at the page."""

from __future__ import annotations

import msgspec

from residency.core.types import (
    Comparison,
    DataSummary,
    ErrorItem,
    MaskProof,
    PartSummary,
    PredictorInfo,
    Report,
    RunFacts,
    Score,
    StageResult,
)
from residency.evals.measure import window

TEXTS = {
    "vi": "Bệnh nhân nam vào viện vì đau ngực trái dữ dội, lan lên vai, đã dùng aspirin 81 mg.",
    "zh": "患者因持续性胸痛三天入院，伴有大汗，既往高血压病史，口服阿司匹林每日一次。",
    "en": "The patient came in with severe chest pain on the left side and took aspirin 81 mg daily.",
}
PLACES = {
    "vi": ("đau ngực trái", "đau ngực trái dữ dội", "aspirin"),
    "zh": ("胸痛", "持续性胸痛", "阿司匹林"),
    "en": ("chest pain", "severe chest pain", "aspirin"),
}
VERDICTS = {
    "learned nothing": (0.0, 0.0, 0.0, 0.0, 1.0),
    "clearly better": (0.83, 0.6, 0.5, 0.7, 0.0005),
    "cannot tell": (0.41, 0.2, -0.1, 0.5, 0.2),
    "not better": (0.22, -0.01, -0.1, 0.1, 0.9),
    "worse": (0.12, -0.2, -0.3, -0.1, 0.01),
}
"""Kind -> score, difference to the baseline, its interval, p."""
LABELS = ("symptom", "drug", "diagnosis")


def score(metric: str, value: float, support: int = 120) -> Score:
    """A score with an interval on 60 notes of 25 groups."""
    low, high = max(0.0, value - 0.08), min(1.0, value + 0.08)
    how = "bootstrap over groups, 1000 samples, 95%"
    about = {"n": 60, "groups": 25, "support": support, "procedure": how}
    return Score(metric=metric, value=value, low=low, high=high, **about)  # type: ignore[arg-type]


def errors(lang: str) -> tuple[ErrorItem, ...]:
    """One of each kind, in a text of the language."""
    text, (inner, outer, drug) = TEXTS[lang], PLACES[lang]
    narrow = (text.index(inner), text.index(inner) + len(inner))
    wide = (text.index(outer), text.index(outer) + len(outer))
    other = (text.index(drug), text.index(drug) + len(drug))

    def item(
        kind: str, gold: str, said: str, at: tuple[int, int], to: tuple[int, int]
    ) -> ErrorItem:
        places = [one for one in (at, to) if one[1]]
        start, end = min(a for a, _ in places), max(b for _, b in places)
        return ErrorItem(
            example="note-0012",
            kind=kind,
            gold=gold,
            predicted=said,
            start=start,
            end=end,
            gold_at=at,
            said_at=to,
            text=window(text, start, end),
        )

    nowhere = (0, 0)
    return (
        item("missed", "drug", "", other, nowhere),
        item("invented", "", "symptom", nowhere, narrow),
        item("boundary", "symptom", "symptom", wide, narrow),
        item("type", "drug", "diagnosis", other, other),
    )


def report(name: str, value: float, test: Comparison | None = None, lang: str = "") -> Report:
    """The results of a system on marking spans."""
    names = ("span_f1", "span_precision", "span_recall", "span_f1_relaxed")
    spread = (0.0, 0.04, -0.03, 0.07)
    overall = [
        score(metric, max(0.0, value + more) if value else 0.0)
        for metric, more in zip(names, spread, strict=True)
    ]
    labels = [
        score(f"span_f1/{label}", max(0.0, value - 0.1 * at), 60 - 20 * at)
        for at, label in enumerate(LABELS)
    ]
    return Report(
        system=PredictorInfo(name=name, base="bundled:tiny-encoder", method="lora", digest="ab12"),
        task="clinical",
        part="test",
        data_digest="d" * 64,
        n=60,
        groups=25,
        scores=(*overall, *labels),
        comparisons=(test,) if test else (),
        slices={
            "length=up to 97 characters": (score("span_f1", value),),
            "length=over 97 characters": (score("span_f1", value),),
        },
        confusion={"drug": {"drug": 40, "diagnosis": 3, "-": 7}, "-": {"symptom": 5}},
        errors=errors(lang) if lang else (),
        seconds=2.5,
    )


STAGE = StageResult(
    name="1-lora",
    method="lora",
    settings={"rank": "8", "steps": "52", "steps of epochs: auto": "247"},
    parameters=4_000_000,
    trainable=100_000,
    metric="span_f1",
    best=0.7,
    best_epoch=2.0,
    stopped="span_f1 on the stop part did not rise for 2 epochs",
    history=(
        {"step": 1.0, "epoch": 0.5, "loss": 2.0},
        {"step": 2.0, "epoch": 1.0, "span_f1": 0.5},
        {"step": 3.0, "epoch": 1.5, "loss": 1.0},
        {"step": 4.0, "epoch": 2.0, "span_f1": 0.7},
    ),
    seconds=75.0,
    tokens_per_second=1234.0,
    padding_share=0.03,
    peak_memory_mb=812.0,
    planned_memory_mb=893.2,
    device="cpu",
    dtype="float32",
    mask=MaskProof(rows=480, tokens=64_000, trained=51_200, labels={"B-drug": 330}, ceiling=0.99),
)


def facts(
    lang: str, kind: str = "clearly better", show_text: bool = True, beside: str = "base"
) -> RunFacts:
    """What a report in a language with a verdict beside a baseline is made of; its stage took too
    few steps."""
    value, difference, low, high, p = VERDICTS[kind]
    how = (
        "paired bootstrap over groups, 1000 samples, 95%; approximate randomisation over groups, p "
        "at least 0.001"
    )
    test = Comparison(
        metric="span_f1",
        a=beside,
        b="tuned",
        difference=difference,
        low=low,
        high=high,
        p=p,
        procedure=how,
    )
    data = DataSummary(
        name="ward",
        files=("notes.jsonl",),
        format="jsonl",
        profile="pseudonymised",
        lang=lang,
        split="random by group: train 80%, dev 10%, test 10%",
        parts={
            "train": PartSummary(
                notes=480, groups=210, characters=480_000, labels={"drug": 770, "symptom": 900}
            ),
            "dev": PartSummary(notes=60, groups=26, characters=60_000, labels={"drug": 96}),
            "test": PartSummary(notes=60, groups=25, characters=60_000, labels={"drug": 95}),
        },
        ledger={
            "kept": {"": 560},
            "repaired": {
                "blanks at the edges of a span trimmed": 40,
                "for training: span is discontinuous": 7,
            },
            "rejected": {"text is empty": 13},
            "windowed": {"longer than the model reads at once": 31},
        },
    )
    return RunFacts(
        name="ward-entities",
        folder="runs/ward-entities",
        created="2025-11-01 10:00",
        recipe="name: ward-entities\n",
        base="bundled:tiny-encoder",
        base_digest="abc",
        hardware="16 cores",
        packages={"torch": "2.9"},
        data=(data,),
        stages=(STAGE,),
        reports=(report(beside, 0.23), report("tuned", value, test, lang)),
        caveats=(
            "The bundled base is a very small model for learning the tool and for tests, never for "
            "care; a larger base is one line of the recipe.",
        ),
        language=lang,
        show_text=show_text,
    )


def labels_facts(lang: str) -> RunFacts:
    """The same of a task that chooses labels, with a second task that answers in words."""
    from residency.core.types import AnswerItem, Bin, Calibration, Screening

    calibration = Calibration(
        temperature=1.7,
        rows=90,
        held_out=lang == "vi",
        before=score("ece", 0.2),
        after=score("ece", 0.04),
        shift=-1.25,
        most_error=0.05,
        threshold=0.81,
    )
    system = msgspec.structs.replace(report("tuned", 0.8).system, calibration=calibration)
    chosen = [score(name, 0.8) for name in ("macro_f1", "micro_f1", "accuracy", "macro_f1/yes")]
    screened = tuple(
        score(name, 0.9) for name in ("sensitivity", "specificity", "ppv", "npv", "auroc")
    )
    one = msgspec.structs.replace(
        report("tuned", 0.8),
        task="triage",
        scores=tuple(chosen),
        slices={},
        errors=(ErrorItem(example="n7", kind="type", gold="yes", predicted="no", text="…"),),
        screening=(Screening(label="yes", tp=40, fp=3, fn=4, tn=13, scores=screened),),
        calibration=(Bin(start=0.5, end=1.0, n=60, chance=0.8, right=0.75, low=0.6, high=0.9),),
        calibration_error=score("ece", 0.05),
        uncalibrated=(Bin(start=0.9, end=1.0, n=60, chance=0.95, right=0.75, low=0.6, high=0.9),),
        uncalibrated_error=score("ece", 0.2),
        abstention=(score("coverage", 0.7), score("error", 0.04)),
        system=system,
    )
    answers = (AnswerItem(example="q1", input="?", gold="1", answer="", failure=""),)
    written = msgspec.structs.replace(
        report("tuned", 0.5),
        task="qa",
        scores=(score("rouge_l", 0.4), score("exact_match", 0.3)),
        slices={},
        confusion={},
        errors=(),
        answers=answers,
        references={"model:m": 20, "real": 40},
        failures=2,
        repaired=3,
    )
    safe = msgspec.structs.replace(
        written,
        task="safety",
        part="safety",
        scores=(score("safe", 0.6), score("harmful", 0.1), score("over_refusal", 0.2)),
        references={"rule": 60},
    )
    return msgspec.structs.replace(facts(lang), reports=(one, written, safe))
