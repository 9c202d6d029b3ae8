"""Every route: what it answers, what it refuses, and that no word of a request comes back in an
error."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient
from serve_tools import HEADERS, KEY, NOTE

from residency.core.errors import UserError
from residency.core.files import file_digest
from residency.core.types import Calibration, Example, Turn
from residency.deid import loose
from residency.models.causal import CausalPredictor
from residency.models.encoder import EncoderPredictor
from residency.serve import Refusal
from residency.serve.app import ROUTES
from residency.serve.auth import Caller, LocalTokens
from residency.serve.engines.in_process import load
from residency.serve.guard import Guard
from residency.serve.launch import greeting
from residency.serve.records.monitoring import Metrics
from residency.serve.settings import Serve

ASK = {
    "model": "words",
    "messages": [{"role": "user", "content": "What is asthma?"}],
    "max_tokens": 8,
}


def events(response: Any) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_entities_are_those_of_the_predictor(client: Any, artefacts: dict[str, Path]) -> None:
    found = client.post("/extract", json={"text": NOTE, "model": "ner"}).json()
    (expected,) = EncoderPredictor.from_artefact(artefacts["ner"]).predict(
        [Example(id="1", task="ner", input=NOTE)]
    )
    spans = expected.answer.spans  # type: ignore[union-attr]
    assert spans and [(e["start"], e["end"], e["label"]) for e in found["entities"]] == [
        (s.start, s.end, s.label) for s in spans
    ]
    assert all(
        e["quote"] == NOTE[e["start"] : e["end"]] and 0 < e["score"] <= 1 for e in found["entities"]
    )
    assert found["digest"] == file_digest(artefacts["ner"] / "artefact.json")


def test_a_chat_is_answered_as_the_predictor_answers(
    client: Any, artefacts: dict[str, Path]
) -> None:
    response = client.post("/v1/chat/completions", json=ASK)
    body = response.json()
    predictor = CausalPredictor.from_artefact(artefacts["words"])
    predictor.generation = predictor.generation.model_copy(update={"max_tokens": 8})
    assert body["choices"][0]["message"]["content"] == predictor.answer(
        (Turn(role="user", text="What is asthma?"),)
    )
    digest = file_digest(artefacts["words"] / "artefact.json")
    assert body["system_fingerprint"] == response.headers["x-residency-digest"] == digest
    usage = body["usage"]
    assert (
        usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
        and usage["completion_tokens"] <= 8
    )


def test_a_stream_says_the_same_in_pieces(client: Any) -> None:
    whole = client.post("/v1/chat/completions", json=ASK).json()
    asked = ASK | {"stream": True, "stream_options": {"include_usage": True}}
    found = events(client.post("/v1/chat/completions", json=asked))
    words = "".join(
        one["choices"][0]["delta"].get("content", "") for one in found if one["choices"]
    )
    assert words == whole["choices"][0]["message"]["content"]
    assert found[-1]["usage"] == whole["usage"] and found[-1]["choices"] == []
    assert found[-2]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_echo_gives_the_likelihood_of_the_prompt(client: Any, artefacts: dict[str, Path]) -> None:
    import torch

    predictor = CausalPredictor.from_artefact(artefacts["words"])
    ids = list(
        predictor.chat.tokenizer("患者 takes metformin, đau bụng", add_special_tokens=False)[
            "input_ids"
        ]
    )
    for most in (0, 1):
        asked = {"model": "words", "prompt": ids, "echo": True, "logprobs": 1, "max_tokens": most}
        choice = client.post("/v1/completions", json=asked).json()["choices"][0]
        logs = choice["logprobs"]["token_logprobs"]
        assert len(logs) == len(ids) + most and logs[0] is None
        with torch.inference_mode():
            expected = predictor.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        for place, token in enumerate(ids[1:], start=1):
            assert logs[place] == pytest.approx(float(expected[place - 1, token]), abs=1e-4)
            best = max(choice["logprobs"]["top_logprobs"][place].values())
            assert best == pytest.approx(float(expected[place - 1].max()), abs=1e-4)


def test_text_prompts_go_on_and_echo(client: Any) -> None:
    plain = client.post(
        "/v1/completions", json={"model": "words", "prompt": ["a b", "肺炎"], "max_tokens": 4}
    ).json()
    echo = client.post(
        "/v1/completions", json={"model": "words", "prompt": "肺炎", "max_tokens": 4, "echo": True}
    ).json()
    assert [one["index"] for one in plain["choices"]] == [0, 1]
    assert echo["choices"][0]["text"] == "肺炎" + plain["choices"][1]["text"]
    asked = {"model": "words", "prompt": "肺炎", "max_tokens": 4, "stream": True}
    words = "".join(
        one["choices"][0]["text"] for one in events(client.post("/v1/completions", json=asked))
    )
    assert words == plain["choices"][1]["text"]


def test_a_diagnosis_is_a_label_with_its_chance_or_none(app: Any) -> None:
    from fastapi.testclient import TestClient

    asked = {
        "patient_info": "62",
        "symptoms": "ho khan",
        "test_results": "",
        "model": "triage",
        "lang": "zh",
    }
    for threshold, abstains in ((0.0, False), (1.0, True)):
        with TestClient(app(threshold=threshold), headers=HEADERS) as client:
            found = client.post("/diagnose", json=asked).json()
        assert found["abstained"] is abstains and (found["diagnosis"] is None) is abstains
        assert 1 / 3 <= found["confidence"] <= 1 and "医生" in found["disclaimer"]


@pytest.mark.parametrize(("own", "abstains"), [(0.0, False), (2.0, True), (None, True)])
def test_the_threshold_of_the_model_takes_the_place_of_the_servers(
    app: Any, engines: dict[str, Any], own: float | None, abstains: bool, monkeypatch: Any
) -> None:
    import msgspec
    from fastapi.testclient import TestClient

    served = msgspec.structs.replace(engines["triage"].served, abstains_below=own)
    monkeypatch.setattr(engines["triage"], "served", served)
    asked = {"patient_info": "Nam, 62", "symptoms": "ho khan", "model": "triage"}
    with TestClient(app(threshold=1.0), headers=HEADERS) as client:
        found = client.post("/diagnose", json=asked).json()
    assert found["abstained"] is abstains and found["confidence"] < 1


def test_a_written_diagnosis_has_the_mean_likelihood_of_its_tokens_or_the_chance_made_of_it(
    app: Any, engines: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastapi.testclient import TestClient

    from residency.serve.routes.clinical import Findings, conversation_of

    asked = {
        "patient_info": "man, 62",
        "symptoms": "cough",
        "test_results": "x-ray: shadow",
        "lang": "en",
    }
    limits = {"output_tokens": 6, "per_second": 1000}
    with TestClient(app(threshold=0, limits=limits), headers=HEADERS) as client:
        found = client.post("/diagnose", json=asked | {"model": "words"}).json()
        engine = engines["words"]
        prompt, _ = engine.chat.prompt(conversation_of(engine.served.card, Findings(**asked)), 200)
        body = {"model": "words", "prompt": prompt, "logprobs": 1, "max_tokens": 6}
        tokens = client.post("/v1/completions", json=body).json()["choices"][0]["logprobs"][
            "token_logprobs"
        ]
    assert found["confidence"] == pytest.approx(math.exp(sum(tokens) / len(tokens)), abs=1e-4)
    likelihood = found["confidence"]
    kept = Calibration(temperature=2.0, rows=99, shift=-1.0)
    served = msgspec.structs.replace(engine.served, calibration=kept)
    monkeypatch.setattr(engine, "served", served)
    with TestClient(app(threshold=0, limits=limits), headers=HEADERS) as client:
        found = client.post("/diagnose", json=asked | {"model": "words"}).json()
    odds = (math.log(likelihood / (1 - likelihood)) - 1) / 2
    assert found["confidence"] == pytest.approx(1 / (1 + math.exp(-odds)), abs=1e-4)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "bad_value"),
        (" ", "empty_text"),
        ("\n\t ", "empty_text"),
        ("\u200b\u200b\ufeff", "empty_text"),
        ("?!…", "empty_text"),
        ("x", "empty_text"),
        ("咳", "empty_text"),
        ("ho\x00 khan", "control_text"),
        ("cough\x1b[2J", "control_text"),
    ],
)
def test_findings_that_say_nothing_are_refused(client: Any, text: str, code: str) -> None:
    asked = {"patient_info": "Nam, 62", "symptoms": text, "model": "triage"}
    found = client.post("/diagnose", json=asked)
    assert (found.status_code, found.json()["error"]["code"]) == (400, code)
    assert found.json()["error"]["message"].count(".") == 1 or code == "bad_value"


def test_only_a_consultation_is_asked_for_a_diagnosis(engines: dict[str, Any]) -> None:
    import msgspec

    from residency.tasks.card import load_card

    served = engines["words"].served
    assert served.routes == ("chat", "diagnose")
    assert msgspec.structs.replace(served, card=load_card("qa")).routes == ("chat",)


@pytest.mark.parametrize(
    ("symptoms", "disclaimer"),
    [("ho khan, sốt", "bác sĩ"), ("咳嗽、发热三天", "医生"), ("dry cough and a fever", "doctor")],
)
def test_the_language_is_that_of_the_request(client: Any, symptoms: str, disclaimer: str) -> None:
    asked = {"patient_info": "62", "symptoms": symptoms, "model": "triage"}
    assert disclaimer in client.post("/diagnose", json=asked).json()["disclaimer"]


@pytest.mark.parametrize(
    ("text", "lang", "loops", "other"),
    [
        ("Viêm phổi thùy dưới phải. Cần chụp X-quang.", "vi", False, False),
        ("Viêm phổi thùy dưới. Viêm phổi thùy dưới.", "vi", True, False),
        ("đau đau đau đau đau", "vi", True, False),
        ("đau, đau, đau, đau", "vi", True, False),
        ("Viêm phổi thùy dưới. viêm phổi  thùy dưới", "vi", True, False),
        ("ho khan kéo dài, ho khan kéo dài, ho khan kéo dài", "vi", True, False),
        ("肺炎，肺炎，肺炎，肺炎", "zh", True, False),
        ("啊啊啊啊啊啊啊", "zh", True, False),
        ("Ho, sốt, khó thở; không đau ngực, không ho ra máu.", "vi", False, False),
        ("Huyết áp 120/80, mạch 80, nhịp thở 20, SpO2 98 %.", "vi", False, False),
        ("ICD-10 J44.1, mã 1000000000.", "vi", False, False),
        ("COPD", "vi", False, False),
        ("The patient has pneumonia.", "vi", False, True),
        ("肺炎", "en", False, True),
        ("肺炎，右下肺。", "zh", False, False),
        ("Pneumonia of the right lower lobe.", "zh", False, True),
    ],
)
def test_what_goes_round_or_is_in_another_language_is_no_answer(
    text: str, lang: str, loops: bool, other: bool
) -> None:
    from residency.serve.routes.clinical import foreign, looped

    assert (looped(text), foreign(text, lang)) == (loops, other)


@pytest.mark.parametrize(
    ("lang", "text", "gone"),
    [
        (
            "vi",
            "Bệnh nhân Nguyễn Văn An, điện thoại 0912 345 678.",
            ["Nguyễn Văn An", "0912 345 678"],
        ),
        ("zh", "患者王小明，电话13812345678。", ["王小明", "13812345678"]),
        (
            "en",
            "Mr. John Smith, e-mail john@smith.org, has asthma.",
            ["John Smith", "john@smith.org"],
        ),
    ],
)
def test_identifiers_leave_a_text_with_offsets_in_both(
    client: Any, lang: str, text: str, gone: list[str]
) -> None:
    from unicodedata import normalize

    for form in ("NFC", "NFD"):
        sent = normalize(form, text)
        found = client.post("/deidentify", json={"text": sent, "lang": lang}).json()
        assert not any(one in found["text"] for one in gone)
        old = [normalize("NFC", sent[one["start"] : one["end"]]) for one in found["replaced"]]
        assert all(any(word in piece for piece in old) for word in gone)
        kept, at, before = "", 0, 0
        for one in found["replaced"]:  # what lies between replacements is the same text
            kept += normalize("NFC", sent[before : one["start"]])
            assert (
                normalize("NFC", sent[before : one["start"]])
                == found["text"][at : one["new_start"]]
            )
            at, before = one["new_end"], one["end"]
        assert normalize("NFC", sent[before:]) == found["text"][at:]


def test_models_are_listed_with_their_digests(client: Any, artefacts: dict[str, Path]) -> None:
    found = {one["id"]: one["digest"] for one in client.get("/v1/models").json()["data"]}
    assert found == {name: file_digest(path / "artefact.json") for name, path in artefacts.items()}
    assert client.get("/v1/models/ner").json()["card"] == "ner"
    assert client.get("/v1/models/none").status_code == 404


MARK = "Zyxwvutsrq"
MESSAGES = [{"role": "user", "content": MARK}]
WRONG: list[tuple[str, Any, int, str]] = [
    ("/extract", {"text": MARK, "model": MARK}, 404, "model_not_found"),
    ("/extract", {"text": MARK, MARK: MARK}, 400, "unknown_field"),
    ("/extract", {"text": [MARK]}, 400, "bad_value"),
    ("/extract", {"txt": MARK}, 400, "missing_field"),
    ("/extract", {"text": MARK, "lang": MARK}, 400, "bad_value"),
    ("/extract", {"text": MARK, "model": "words"}, 400, "wrong_model"),
    ("/extract", {"text": f"{MARK} " * 600, "model": "ner"}, 400, "too_long"),
    (
        "/diagnose",
        {"patient_info": MARK, "symptoms": MARK, "department": "ner"},
        400,
        "wrong_model",
    ),
    ("/diagnose", {"patient_info": MARK}, 400, "missing_field"),
    ("/deidentify", {"text": ""}, 400, "bad_value"),
    ("/v1/chat/completions", {"model": MARK, "messages": MESSAGES}, 404, "model_not_found"),
    ("/v1/chat/completions", {"model": "ner", "messages": MESSAGES}, 400, "wrong_model"),
    (
        "/v1/chat/completions",
        {"model": "words", "messages": [{"role": MARK, "content": MARK}]},
        400,
        "bad_value",
    ),
    (
        "/v1/chat/completions",
        {"model": "words", "messages": MESSAGES, "tools": [MARK]},
        400,
        "bad_value",
    ),
    (
        "/v1/chat/completions",
        {"model": "words", "messages": MESSAGES, "max_tokens": 513},
        400,
        "too_long",
    ),
    (
        "/v1/chat/completions",
        {
            "model": "words",
            "messages": [*MESSAGES, *MESSAGES, {"role": "system", "content": MARK}, *MESSAGES],
        },
        400,
        "bad_turns",
    ),
    (
        "/v1/chat/completions",
        {
            "model": "words",
            "messages": [
                *MESSAGES,
                {
                    "role": "assistant",
                    "tool_calls": [
                        {
                            "id": "1",
                            "type": "function",
                            "function": {"name": "f", "arguments": '{"a":' + "[" * 3000},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "1", "content": MARK},
            ],
        },
        400,
        "bad_turns",
    ),
    ("/v1/completions", {"model": "words", "prompt": MARK, "max_tokens": 0}, 400, "bad_value"),
    ("/v1/completions", {"model": "words", "prompt": [10**9]}, 400, "bad_tokens"),
    (
        "/v1/completions",
        {"model": "words", "prompt": MARK, "stream": True, "echo": True},
        400,
        "not_streamed",
    ),
    (
        "/v1/completions",
        {"model": "words", "prompt": MARK, "suffix": MARK},
        400,
        "unsupported_field",
    ),
    ("/v1/completions", {"model": "words", "prompt": MARK, MARK: MARK}, 400, "unknown_field"),
    (f"/{MARK}", {}, 404, "no_route"),
]


@pytest.mark.parametrize("depth", [900, 30_000])
def test_a_body_that_is_nested_deeply_is_refused(client: Any, depth: int) -> None:
    body = b'{"model":"ner","text":' + b"[" * depth + b"]" * depth + b"}"
    response = client.post(
        "/extract", content=body, headers={**client.headers, "content-type": "application/json"}
    )
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    WRONG,
    ids=[f"{path}-{code}-{i}" for i, (path, _, _, code) in enumerate(WRONG)],
)
def test_errors_have_one_form_and_echo_nothing(
    client: Any, path: str, body: Any, status: int, code: str
) -> None:
    response = client.post(path, json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert (
        MARK.lower() not in response.text.lower()
        and MARK.lower() not in str(response.headers).lower()
    )
    message = response.json()["error"]["message"]
    assert message.endswith(".") and "\n" not in message
    assert ("param" in response.json()["error"]) is path.startswith("/v1/")


def test_a_body_that_is_no_json_and_a_key_that_is_none(client: Any) -> None:
    response = client.post("/extract", content=MARK, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["error"]["code"]) == (
        400,
        "bad_json",
    ) and MARK not in response.text
    response = client.post("/extract", content=MARK, headers={"Authorization": f"Bearer {MARK}"})
    assert (
        response.status_code == 401
        and MARK not in response.text
        and "www-authenticate" in response.headers
    )
    assert client.get("/extract").status_code == 405


def test_six_at_once_are_one_too_many(app: Any) -> None:
    from fastapi.testclient import TestClient

    with TestClient(app(limits={"per_second": 5}), headers=HEADERS) as client:
        answers = [client.get("/v1/models") for _ in range(6)]
    assert [one.status_code for one in answers] == [200] * 5 + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_without_names_the_first_model_that_suits_answers(client: Any) -> None:
    asked = {"patient_info": "62", "symptoms": "ho khan"}
    assert client.post("/extract", json={"text": NOTE}).json()["model"] == "ner"
    assert client.post("/diagnose", json=asked).json()["model"] == "triage"
    assert client.post("/diagnose", json=asked | {"department": "words"}).json()["model"] == "words"


def test_probes_need_no_key_and_docs_nothing_from_elsewhere(client: Any) -> None:
    for path in ("/healthz", "/readyz", "/docs", "/openapi.json"):
        assert client.get(path, headers={"Authorization": ""}).status_code == 200
    page = client.get("/docs").text
    assert "ho khan" in page and "咳嗽" in page and "dry cough" in page
    assert "<script" not in page and "https://" not in page
    assert "422" not in json.dumps(client.get("/openapi.json").json()["paths"])


def test_readiness_is_what_the_model_says(
    app: Any, engines: dict[str, Any], artefacts: dict[str, Path]
) -> None:
    from fastapi.testclient import TestClient

    from residency.serve.engines.in_process import load

    engine = load(artefacts["ner"], "ner", device="cpu")
    with TestClient(app({"ner": engine}, fingerprint_seconds=0.05)) as client:
        assert client.get("/readyz").json() == {
            "ready": True,
            "models": {"ner": True},
            "digests": {"ner": engine.served.digest},
            "counting": True,
            "recording": True,
            "keys": True,
            "draining": False,
            "identifiers": loose.finders(),
        }
        for parameter in engine.predictor.model.parameters():  # type: ignore[union-attr]
            parameter.data.normal_()
        import time

        until = time.monotonic() + 600
        while client.get("/readyz").status_code == 200 and time.monotonic() < until:
            time.sleep(0.05)
        assert client.get("/readyz").status_code == 503


def test_an_encoder_in_16_bits_says_so_and_answers_about_the_same(
    artefacts: dict[str, Path],
) -> None:
    whole, short = (
        load(artefacts["triage"], "triage", Serve(dtype=dtype), "cpu") for dtype in ("auto", "bf16")
    )
    assert (whole.served.dtype, short.served.dtype) == ("float32", "bfloat16")
    one, two = (engine.predictor._read([NOTE])[1][0] for engine in (whole, short))  # type: ignore[union-attr]
    assert (
        one.shape == two.shape and 0 < abs(one - two).max() < 0.1
    )  # it is another number, and near
    assert asyncio.run(short.probe())
    with pytest.raises(
        UserError, match=r"^dtype: .*words cannot be served in bf16 .* set dtype: auto\.$"
    ):
        load(artefacts["words"], "words", Serve(dtype="bf16"), "cpu")


def test_likelihoods_do_not_go_around_the_filter_of_answers(app: Callable[..., Any]) -> None:
    asked = {"model": "words", "prompt": "Bệnh nhân ho khan", "max_tokens": 4}
    with TestClient(app(deidentify_answers=True), headers=HEADERS) as client:
        refused = client.post("/v1/completions", json=asked | {"logprobs": 1})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "no_logprobs")
        assert client.post("/v1/completions", json=asked).status_code == 200
        own = client.post(
            "/v1/completions", json=asked | {"logprobs": 1, "echo": True, "max_tokens": 0}
        )
        assert own.status_code == 200  # what was sent, and nothing that the model wrote


def test_answers_pass_through_the_tagger_where_it_is_installed_and_say_so(
    app: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    if not loose.PACKAGED.is_dir():
        pytest.skip("the package carries no weights")
    text = "seen w Farquhar today"  # in no list of the rules
    asked = {"model": "words", "prompt": "ho khan", "max_tokens": 2}
    for installed, said in ((True, "rules and tagger"), (False, "rules alone")):
        if not installed:
            monkeypatch.setattr(loose, "PACKAGED", Path("nowhere"))
            monkeypatch.setattr(loose, "unreviewed", loose.unreviewed.__wrapped__)
        with TestClient(app(deidentify_answers=True), headers=HEADERS) as client:
            answer = client.post("/v1/completions", json=asked)
            assert answer.headers["x-residency-deidentified"] == said
            found = client.post("/deidentify", json={"text": text, "lang": "en"})
            assert found.json()["found_by"] == said
            assert found.headers["x-residency-deidentified"] == said
            assert client.get("/readyz").json()["identifiers"] == said
            greeted = greeting({}, Serve())
            assert any("rules alone" in line for line in greeted) == (not installed)
            asking = SimpleNamespace(settings=Serve(deidentify_answers=True))
            left = asyncio.run(Guard.deidentified(asking, text, "en"))  # type: ignore[arg-type]
            assert ("Farquhar" in left) == ("Farquhar" in found.json()["text"]) == (not installed)
    with TestClient(app(), headers=HEADERS) as client:
        answer = client.post("/v1/completions", json=asked)
        assert "x-residency-deidentified" not in answer.headers


def test_a_server_that_cannot_count_is_not_ready(app: Callable[..., Any]) -> None:
    class Gone:
        async def take(self, user: str) -> None:
            raise Refusal(
                503,
                "rate_unavailable",
                "Requests cannot be counted at the moment; try again shortly.",
                1.0,
            )

        async def ready(self) -> bool:
            return False

    with TestClient(app(rate=Gone()), headers=HEADERS) as client:
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["counting"]) == (503, False)
        assert all(answer.json()["models"].values())
        assert client.post("/extract", json={"text": "ho khan"}).status_code == 503


def test_figures_say_what_is_under_way(app: Callable[..., Any], engines: dict[str, Any]) -> None:
    figures = Metrics(ROUTES, engines)
    seen: list[float | None] = []

    class Watching(LocalTokens):
        async def caller(self, authorization: str | None) -> Caller:
            seen.append(figures.registry.get_sample_value("residency_running"))
            return await super().caller(authorization)

    with TestClient(app(tokens=Watching(KEY), metrics=figures), headers=HEADERS) as client:
        for body in ({"text": "ho khan"}, {"text": 7}):
            client.post("/extract", json=body)
    assert seen == [1.0, 1.0]
    assert figures.registry.get_sample_value("residency_running") == 0
