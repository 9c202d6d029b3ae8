"""The clinical routes: from findings to a diagnosis, from a note to its entities, from a text to
one without what identifies."""

from __future__ import annotations

import asyncio
import re
from math import exp
from typing import Annotated, Literal, cast
from unicodedata import category

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from residency.core.errors import UserError
from residency.core.types import Labels, Note, Text, Turn
from residency.locale.tokenise import detect
from residency.serve import Refusal
from residency.serve.engines import ModelEngine, WritingRequest
from residency.serve.guard import (
    DEIDENTIFIED,
    Guard,
    Guarded,
    GuardedRequest,
    exchange_of,
    guard_of,
)
from residency.serve.routes.openai import Body, gathered
from residency.tasks.card import Card
from residency.tasks.codec import conversation
from residency.tasks.examples import question
from residency.tasks.families import checked
from residency.tasks.families.spans import spans_of

router = APIRouter(route_class=Guarded)

Lang = Literal["vi", "zh", "en"]
SENTENCE_WORDS = 4
"""Latin words from which on an answer has a language."""
LEAST_SENTENCE = 6
"""Characters of a sentence that is not said twice."""
ROUND = re.compile(r"(\D{8,120}?)\1{2}|(.{2,60}?)(?<!\d)\2{3}|(\D)\3{6}")
"""What goes round, in a text without blanks and signs; digits may repeat."""
Name = Annotated[str, Field(min_length=1, max_length=128)]
Words = Annotated[str, Field(min_length=1, max_length=100_000)]
DISCLAIMERS: dict[str, str] = {
    "vi": (
        "Kết quả do mô hình máy tính đưa ra để hỗ trợ; không thay cho chẩn đoán của bác sĩ. Bác "
        "sĩ điều trị chịu trách nhiệm quyết định."
    ),
    "zh": "结果由计算机模型给出，仅供参考，不能代替医生的诊断；由主治医师作出决定。",
    "en": (
        "This was made by a computer model as an aid; it does not replace a doctor's diagnosis. "
        "The treating doctor decides."
    ),
}


def _examples(*bodies: dict[str, str]) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [dict(one) for one in bodies]})


class Findings(Body):
    """What is known of a patient."""

    model_config = _examples(
        {
            "patient_info": "Nam, 62 tuổi, hút thuốc lá 30 năm",
            "symptoms": "ho khan, sốt 38.5 độ, đau ngực",
            "test_results": "X-quang: mờ thùy dưới phổi phải",
            "lang": "vi",
        },
        {
            "patient_info": "男，62岁，吸烟30年",
            "symptoms": "咳嗽、发热三天",
            "test_results": "胸片：右下肺阴影",
            "lang": "zh",
        },
        {
            "patient_info": "Man, 62, smoker for 30 years",
            "symptoms": "dry cough, fever of 38.5 C",
            "test_results": "X-ray: shadow in the right lower lobe",
            "lang": "en",
        },
    )

    patient_info: Words
    symptoms: Words
    test_results: Annotated[str, Field(max_length=100_000)] = ""
    department: Name | None = None
    model: Name | None = None
    lang: Lang | None = None
    """Of the answer; that of the findings where not given."""


class Diagnosis(BaseModel):
    """A diagnosis, or none where the model is not sure enough."""

    diagnosis: str | None
    confidence: float | None
    """0 to 1: the chance of the label; of a written answer the mean likelihood of its tokens, which
    is no chance of being right, unless the model was calibrated: then its chance to be right."""
    abstained: bool
    disclaimer: str
    model: str
    digest: str


class Passage(Body):
    """A text."""

    model_config = _examples(
        {"text": "Bệnh nhân ho khan, được điều trị bằng metformin 500mg.", "lang": "vi"},
        {"text": "患者咳嗽、发热三天，予以阿莫西林治疗。", "lang": "zh"},
        {"text": "The patient takes metformin 500 mg twice daily.", "lang": "en"},
    )

    text: Words
    department: Name | None = None
    model: Name | None = None
    lang: Lang = "vi"


class Entity(BaseModel):
    """A stretch of the text: offsets are Unicode code points, the end exclusive."""

    start: int
    end: int
    label: str
    quote: str
    code: str | None
    attributes: list[str]
    score: float | None


class Entities(BaseModel):
    """What the model found in a text."""

    entities: list[Entity]
    model: str
    digest: str


class Identified(Body):
    """A text that may identify somebody."""

    model_config = _examples(
        {
            "text": ("Bệnh nhân Nguyễn Văn An, sinh ngày 12/03/1961, điện thoại 0912 345 678."),
            "lang": "vi",
        },
        {"text": "患者王小明，电话13812345678，2024年3月12日入院。", "lang": "zh"},
        {"text": "Mr. John Smith, born 12 March 1961, phone 555-0134.", "lang": "en"},
    )

    text: Words
    lang: Lang = "vi"


class Change(BaseModel):
    """What was replaced: offsets in the text that was sent, and in the one that is returned."""

    start: int
    end: int
    kind: str
    new_start: int
    new_end: int


class DeidentifiedText(BaseModel):
    """A text with something invented in the place of what was found, and by what it was found:
    ``rules and tagger``, or ``rules alone`` where the tagger is not installed."""

    text: str
    replaced: list[Change]
    found_by: str


@router.post("/diagnose", tags=["diagnose"], response_model=Diagnosis)
async def diagnose(body: Findings, request: Request) -> Response:
    """From findings to the most likely diagnosis, with its confidence; none where that is below the
    threshold that the model's training chose for a stated error, else the server's."""
    guard, exchange = guard_of(request), exchange_of(request)
    engine = guard.engine(exchange, named(body.model, body.department), "diagnose")
    served = engine.served
    if "diagnose" not in served.routes:
        what = "writes" if "chat" in served.routes else "marks entities"
        other = "/extract" if "extract" in served.routes else "/v1/chat/completions"
        said = f"Model {served.name} {what}, and its task is no consultation; use {other}."
        raise Refusal(400, "wrong_model", said)
    check_findings(body)
    lang = body.lang or language(f"{body.patient_info} {body.symptoms}")
    # Vietnamese without its marks looks like English: only what is sure binds the answer
    bound = body.lang or (None if lang == "en" else lang)
    # What chooses says its chance, what writes is asked in words.
    answer = {Labels: _chosen, Text: _written}[served.answers]
    found, sure = await answer(guard, exchange, engine, body.model_copy(update={"lang": bound}))
    least = served.abstains_below
    least = guard.settings.threshold if least is None else least
    abstained = found is None or sure is None or sure < least
    shown = None if abstained or found is None else await guard.deidentified(found, lang)
    return JSONResponse(
        {
            "diagnosis": shown,
            "confidence": sure,
            "abstained": abstained,
            "disclaimer": DISCLAIMERS[lang],
            "model": served.name,
            "digest": served.digest,
        }
    )


def check_findings(body: Findings) -> None:
    """Raises ``Refusal`` 400 where the findings say nothing that could be asked about."""
    for name in ("patient_info", "symptoms", "test_results"):
        text = getattr(body, name)
        if any(category(one) == "Cc" and one not in "\n\r\t" for one in text):
            said = f"{name} holds control characters; send plain text."
            raise Refusal(400, "control_text", said)
        # signs, and what has no width, say nothing
        if name != "test_results" and sum(one.isalnum() for one in text) < 2:
            raise Refusal(400, "empty_text", f"{name} holds no words; say what is known in words.")


def language(text: str) -> Lang:
    """The language that a request is written in; Vietnamese where it has no letters."""
    found = detect(text)
    return cast(Lang, found) if found in DISCLAIMERS else "vi"


def foreign(text: str, lang: Lang | None) -> bool:
    """Whether an answer is in another language than it was asked in, where that is known. A few
    Latin words may be anything's name."""
    found = detect(text)
    if lang is None:
        return False
    if "zh" in (found, lang) or (found, lang) == ("vi", "en"):
        return found not in ("", lang)
    return found != lang and len(text.split()) >= SENTENCE_WORDS


def looped(text: str) -> bool:
    """Whether an answer goes round: the same sentence twice, a stretch of it three times on end, a
    few letters four times, or one many times, whatever signs stand between. How likely its tokens
    are says nothing then."""
    said = [" ".join(one.split()) for one in re.split(r"[.!?。！？\n]+", text.casefold())]
    long = [one for one in said if len(one) >= LEAST_SENTENCE]
    return (
        len(long) > len(set(long))
        or ROUND.search(re.sub(r"[\W_]+", "", text.casefold())) is not None
    )


def named(model: str | None, department: str | None) -> str | None:
    """The model that a request names: by its name, else by its department."""
    return model if model is not None else department


async def _chosen(
    guard: Guard, exchange: GuardedRequest, engine: ModelEngine, body: Findings
) -> tuple[str | None, float | None]:
    """The likeliest label and its chance."""
    text = "\n".join(part for part in (body.patient_info, body.symptoms, body.test_results) if part)
    guard.check_text(exchange, engine, text)
    await guard.charge(exchange, 0)
    answer = checked((await engine.classify(text)).answer, Labels, "family labels")
    if answer is None or not answer.labels:
        return None, None
    best = answer.labels[0]
    sure = answer.chances.get(best, answer.scores[0] if answer.scores else None)
    title = next((label.title for label in engine.served.card.labels if label.name == best), "")
    return title or best, sure


async def _written(
    guard: Guard, exchange: GuardedRequest, engine: ModelEngine, body: Findings
) -> tuple[str | None, float | None]:
    """What the model writes, and the mean likelihood of its tokens, made a chance where its
    training found how."""
    turns = conversation_of(engine.served.card, body)
    texts = [body.patient_info, body.symptoms, body.test_results]
    sizes = guard.check_words(exchange, engine, texts, turns, None)
    await guard.charge(exchange, sizes.answer)
    asked = WritingRequest(turns=turns, max_tokens=sizes.answer, whole=True)
    answer = await gathered(engine.write(asked))
    exchange.written += answer.tokens
    said = answer.text.strip()
    if not said or not answer.tokens or looped(said):
        return None, None
    sure = round(exp(answer.log_probability / answer.tokens), 6)
    found = engine.served.calibration
    sure = found.sure(sure) if found else sure
    return (None if foreign(said, body.lang) else said), sure


def conversation_of(card: Card, body: Findings) -> tuple[Turn, ...]:
    """Findings as the served card puts them into words. Raises ``Refusal`` 400 where it asks for
    more than there is."""
    fields = {"patient": body.patient_info, "symptoms": body.symptoms, "results": body.test_results}
    note = Note(id="", text="", profile="pseudonymised", lang=body.lang or "", fields=fields)
    try:
        return conversation(question(note, card), card)
    except UserError:
        said = "The model's card asks for more than patient, symptoms and results; use the chat."
        raise Refusal(400, "wrong_model", said) from None


@router.post("/extract", tags=["extract"], response_model=Entities)
async def extract(body: Passage, request: Request) -> Response:
    """The entities of a text, with offsets in code points of the text as it was sent."""
    guard, exchange = guard_of(request), exchange_of(request)
    engine = guard.engine(exchange, named(body.model, body.department), "extract")
    served = engine.served
    if "extract" not in served.routes:
        other = "use /diagnose or /v1/chat/completions"
        raise Refusal(400, "wrong_model", f"Model {served.name} marks no entities; {other}.")
    guard.check_text(exchange, engine, body.text)
    most = guard.settings.limits.output_tokens if "chat" in served.routes else 0
    await guard.charge(exchange, most)
    found = await engine.classify(body.text)
    if found.answer is None:
        if not found.text:
            fits = f"The text does not fit the {served.window} tokens that this model reads."
            raise Refusal(400, "too_long", fits)
        raise Refusal(502, "unreadable", "What the model wrote cannot be read as entities.")
    exchange.written = (found.tokens or 0) if "chat" in served.routes else 0
    entities = [
        {
            "start": span.start,
            "end": span.end,
            "label": span.label,
            "quote": body.text[span.start : span.end],
            "code": span.code,
            "attributes": list(span.attributes),
            "score": span.score,
        }
        for span in spans_of(found.answer)
    ]
    return JSONResponse({"entities": entities, "model": served.name, "digest": served.digest})


@router.post("/deidentify", tags=["deidentify"], response_model=DeidentifiedText)
async def deidentify(body: Identified, request: Request) -> Response:
    """A text with something invented in the place of names, dates, numbers and addresses that rules
    and tagger find. Nothing is kept. They do not find everything: a person reads the text before it
    leaves the hospital."""
    from residency.deid.loose import finders, replace_identifiers, unreviewed

    guard, exchange = guard_of(request), exchange_of(request)
    guard.check_text(exchange, next(iter(guard.engines.values())), body.text)
    await guard.charge(exchange, 0)
    find = unreviewed()  # read when the server starts
    found = await asyncio.to_thread(replace_identifiers, body.text, body.lang, find)
    replaced = msgspec.to_builtins(found.replacements)
    answer = {"text": found.text, "replaced": replaced, "found_by": finders()}
    return JSONResponse(answer, headers={DEIDENTIFIED: finders()})
