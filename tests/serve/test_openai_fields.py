"""Fields of OpenAI's requests: each does what its name says, or is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fastapi.testclient import TestClient
from serve_tools import HEADERS, KEY

from residency.models.causal import CausalPredictor
from residency.serve import engines as kinds
from residency.serve.guard import NAMES
from residency.serve.routes.openai import ChatBody, CompletionBody

ROOT = Path(__file__).parents[2]
CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {
    "model": "words",
    "messages": [{"role": "user", "content": "What is asthma?"}],
    "max_tokens": 12,
}
DRUG = {
    "type": "object",
    "properties": {
        "drug": {"enum": ["metformin", "aspirin"]},
        "mg": {"type": "integer", "minimum": 1, "maximum": 999},
    },
    "required": ["drug", "mg"],
    "additionalProperties": False,
}


def said(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["message"]["content"] for one in answer.json()["choices"]]


@pytest.mark.training
def test_equal_seeds_draw_equally_and_others_do_not(client: Any) -> None:
    hot = ASK | {"temperature": 1.5}
    seeds = [said(client.post(CHAT, json=hot | {"seed": seed}))[0] for seed in (7, 7, 8, -1)]
    assert seeds[0] == seeds[1] and len(set(seeds)) == 3
    assert len({said(client.post(CHAT, json=hot))[0] for _ in range(3)}) == 3


def test_a_seed_draws_alone_what_it_draws_among_others(client: Any) -> None:
    hot = ASK | {"temperature": 1.2, "seed": 3}
    alone = said(client.post(CHAT, json=hot))
    several = said(client.post(CHAT, json=hot | {"n": 5}))
    assert several[:1] == alone and len(set(several)) == 5
    assert several == said(client.post(CHAT, json=hot | {"n": 5}))


def test_choices_are_counted_and_charged(app: Callable[..., Any]) -> None:
    limits = {"per_second": 1000, "work_tokens": 100}
    with TestClient(app(limits=limits), headers=HEADERS) as client:
        asked = ASK | {"temperature": 1, "seed": 1, "n": 4}
        one, four = (client.post(CHAT, json=asked | {"n": n}).json()["usage"] for n in (1, 4))
        assert four["prompt_tokens"] == one["prompt_tokens"]
        assert four["completion_tokens"] > 2 * one["completion_tokens"]
        refused = client.post(CHAT, json=asked | {"n": 8})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "too_long")


def test_likelihoods_of_a_chat_are_the_models_own(client: Any, artefacts: Any) -> None:
    import torch

    found = client.post(CHAT, json=ASK | {"logprobs": True, "top_logprobs": 3}).json()
    tokens = found["choices"][0]["logprobs"]["content"]
    assert "".join(one["token"] for one in tokens) == found["choices"][0]["message"]["content"]
    predictor = CausalPredictor.from_artefact(artefacts["words"])
    written = predictor.chat.tokenizer.apply_chat_template(
        ASK["messages"], tokenize=False, add_generation_prompt=True
    )
    prompt = predictor.chat.ids(written)
    with torch.inference_mode():
        best = predictor.model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1).topk(3)
    top = [one["logprob"] for one in tokens[0]["top_logprobs"]]
    assert top == pytest.approx(best.values.tolist(), abs=1e-4)
    assert tokens[0]["logprob"] == pytest.approx(top[0])  # greedy
    assert all(one["bytes"] == [*one["token"].encode()] for one in tokens)


def test_json_keeps_to_its_schema_hot_or_cold(client: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "drug", "schema": DRUG, "strict": True}}
    asked = ASK | {"response_format": form, "max_tokens": 60}
    for how in ({}, {"temperature": 2, "seed": 1, "n": 3}):
        for text in said(client.post(CHAT, json=asked | how)):
            found = json.loads(text)
            assert set(found) == {"drug", "mg"} and found["drug"] in ("metformin", "aspirin")
            assert 1 <= found["mg"] <= 999


def test_a_choice_is_one_of_those_given(client: Any) -> None:
    choices = ["肺炎", "viêm phổi", 'a "quoted" one\\']
    asked = ASK | {"structured_outputs": {"choice": choices}, "temperature": 2, "max_tokens": 40}
    seen = {said(client.post(CHAT, json=asked | {"seed": seed}))[0] for seed in range(12)}
    assert seen <= set(choices) and len(seen) > 1
    text = {
        "model": "words",
        "prompt": "x",
        "max_tokens": 40,
        "structured_outputs": {"choice": choices[:1]},
    }
    assert client.post("/v1/completions", json=text).json()["choices"][0]["text"] == choices[0]


@pytest.mark.parametrize("schema", [{"type": "no such type"}, {"$ref": "http://example.org/x"}])
def test_a_form_that_cannot_be_held_is_refused(client: Any, schema: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    found = client.post(CHAT, json=ASK | {"response_format": form})
    assert (found.status_code, found.json()["error"]["code"]) == (400, "bad_form")


@pytest.mark.training
def test_penalties_end_repetition(client: Any) -> None:
    """At 2 a token that was written loses e^2 each time: fewer repeats than without."""
    long = ASK | {"max_tokens": 60}

    def repeats(how: dict[str, Any]) -> int:
        asked = long | how | {"logprobs": True}
        tokens = client.post(CHAT, json=asked).json()["choices"][0]["logprobs"]["content"]
        words = [one["token"] for one in tokens]
        return len(words) - len(set(words))

    assert repeats({"frequency_penalty": 2, "presence_penalty": 2}) < repeats({})


def test_stop_texts_end_an_answer_and_are_no_part_of_it(client: Any) -> None:
    (whole,) = said(client.post(CHAT, json=ASK))
    middle = whole[3:6]
    (cut,) = said(client.post(CHAT, json=ASK | {"stop": [middle, "never"]}))
    assert cut == whole[: whole.index(middle)]


def test_nulls_are_as_if_they_were_left_out(client: Any) -> None:
    own = {"model", "messages", "max_tokens"}
    nulls = dict.fromkeys(set(ChatBody.model_fields) - own)
    assert said(client.post(CHAT, json=ASK | nulls)) == said(client.post(CHAT, json=ASK))


def test_history_as_clients_keep_it(client: Any) -> None:
    kept = {
        "role": "assistant",
        "content": "Asthma narrows the airways.",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    short = {"role": "assistant", "content": kept["content"]}
    last = {"role": "user", "content": "Since when?"}
    answers = [
        said(client.post(CHAT, json=ASK | {"messages": [*ASK["messages"], one, last]}))
        for one in (kept, short)
    ]
    assert answers[0] == answers[1]
    for name in ("refusal", "audio", "function_call"):
        asked = ASK | {"messages": [*ASK["messages"], kept | {name: "no"}, last]}
        error = client.post(CHAT, json=asked).json()["error"]
        assert error["code"] == "unsupported_field" and f"messages.1.{name} " in error["message"]


@pytest.mark.parametrize(
    "name", ["logit_bias", "audio", "service_tier", "functions", "reasoning_effort"]
)
def test_what_is_not_done_is_refused_by_name(client: Any, name: str) -> None:
    error = client.post(CHAT, json=ASK | {name: {"x": 1}}).json()["error"]
    assert error["code"] == "unsupported_field" and f" at {name} " in error["message"]


@pytest.mark.training
def test_rows_that_join_and_leave_are_written_as_alone(engines: dict[str, Any]) -> None:
    """Six answers of several lengths and settings through three places: each as it is alone."""
    import asyncio

    from residency.core.types import Turn
    from residency.serve.engines import WritingRequest
    from residency.serve.engines.in_process import GenerativeEngine
    from residency.serve.routes.openai import gathered
    from residency.serve.settings import Serve

    words = engines["words"]
    engine = GenerativeEngine(words.predictor, words.served, Serve(batch_rows=3))
    texts = [
        "Gan?",
        "What is asthma, and what is done about it at night?",
        "肺炎",
        "a",
        "b c",
        "Ho.",
    ]
    asked = [
        WritingRequest(
            turns=(Turn(role="user", text=text),),
            max_tokens=4 + 5 * place,
            temperature=place % 2 * 1.1,
            top_p=0.9,
            seed=place,
        )
        for place, text in enumerate(texts)
    ]
    seen: list[int] = []
    engine.watch = lambda waiting, rows: seen.append(rows)

    async def whole() -> tuple[list[Any], list[Any]]:
        alone = [await gathered(engine.write(one)) for one in asked]
        seen.clear()
        return alone, list(await asyncio.gather(*(gathered(engine.write(one)) for one in asked)))

    alone, together = asyncio.run(whole())
    assert [one.ids for one in alone] == [one.ids for one in together]
    assert [one.end for one in alone] == [one.end for one in together]
    assert max(seen) == 3 and len(seen) > 2  # later ones joined while others were written
    for one, other in zip(alone, together, strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)
    assert msgspec.structs.asdict(alone[0])["tokens"] <= 4
    asyncio.run(engine.close())


def test_probes_answer_head(client: Any) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        answer = client.head(path, headers={"Authorization": ""})
        assert (answer.status_code, answer.content) == (200, b"")
    assert client.head("/extract").status_code == 405


def test_pages_of_named_origins_may_ask_and_others_not(app: Callable[..., Any]) -> None:
    ask = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization",
    }
    ours, other = "https://app.hospital.example", "https://other.example"

    def allowed(client: TestClient, origin: str) -> str | None:
        found = client.options(CHAT, headers=ask | {"Origin": origin})
        return found.headers.get("access-control-allow-origin")

    with TestClient(app(cors=[ours])) as client:
        assert allowed(client, ours) == ours and allowed(client, other) is None
        answer = client.post(CHAT, json=ASK, headers=HEADERS | {"Origin": ours})
        assert answer.headers["access-control-allow-origin"] == ours
    with TestClient(app()) as client:
        assert allowed(client, ours) is None


def table() -> str:
    """The fields as the guide shows them."""
    done = {name for names, _ in kinds.FIELDS.values() for name in names}
    heads = {"process": "in process", "vllm": "vLLM", "llama": "llama.cpp", "triton": "Triton"}
    columns = [name for name in heads if name in done]
    lines = [
        f"| field | {' | '.join(heads[one] for one in columns)} | what |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name, (engines, what) in kinds.FIELDS.items():
        each = ["yes" if one in engines else "refused" for one in columns]
        lines.append(f"| `{name}` | {' | '.join(each)} | {what} |")
    refused = {*ChatBody.model_fields, *CompletionBody.model_fields} - set(kinds.FIELDS)
    names = ", ".join(f"`{name}`" for name in sorted(refused))
    return "\n".join(["", *lines, "", f"Refused everywhere, unless null: {names}.", ""])


def test_the_guide_has_the_table_of_fields() -> None:
    guide = (ROOT / "docs/guide/serving-engines.md").read_text("utf-8")
    assert guide.split("<!-- fields -->\n")[1].split("\n<!-- end -->")[0] == table()


def test_every_field_of_the_table_is_one_of_a_body_and_may_be_named_in_errors() -> None:
    known = {*ChatBody.model_fields, *CompletionBody.model_fields}
    assert set(kinds.FIELDS) <= known <= set(NAMES.split())
    for name in known - set(kinds.FIELDS):
        for body in (ChatBody, CompletionBody):
            if name in body.model_fields:
                assert body.model_fields[name].annotation in (None, type(None)), name


def test_a_field_that_an_engine_does_not_have_is_refused_by_name(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(kinds.FIELDS, "seed", (("vllm",), ""))
    assert client.post(CHAT, json=ASK | {"seed": None}).status_code == 200
    error = client.post(CHAT, json=ASK | {"seed": 1}).json()["error"]
    assert error["code"] == "unsupported_field" and " seed;" in error["message"]


# Tools: a template that knows them, as Hermes' and Qwen's write calls

TEMPLATE = (
    "{{ bos_token }}{% if tools %}<|system|>Tools:{% for tool in tools %} {{ tool | tojson }}"
    "{% endfor %}<|end|>{% endif %}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + (message['content'] or '') }}"
    "{% for call in message.tool_calls or [] %}{{ '<tool_call>' }}\n"
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}\n"
    "{{ '</tool_call>' }}{% endfor %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
DOSE = {
    "type": "function",
    "function": {"name": "find_dose", "description": "The dose of a drug.", "parameters": DRUG},
}
AGE = {"type": "function", "function": {"name": "find_age"}}


@pytest.fixture
def tools(app: Callable[..., Any], engines: dict[str, Any]) -> Any:
    """A client of a model whose template knows tools."""
    import copy

    from residency.models.chat_template import ChatTokeniser
    from residency.serve.engines.in_process import GenerativeEngine
    from residency.serve.settings import Serve

    words = engines["words"]
    predictor = copy.copy(words.predictor)
    tokenizer = copy.deepcopy(words.chat.tokenizer)
    tokenizer.chat_template = TEMPLATE
    predictor.chat = ChatTokeniser(tokenizer, words.chat.window, words.chat.limits)
    engine = GenerativeEngine(predictor, words.served, Serve())
    limits = {"per_second": 1000, "input_tokens": 500}
    with TestClient(app({"words": engine}, limits=limits), headers=HEADERS) as client:
        yield client


def test_the_form_of_a_call_is_read_from_the_template(tools: Any) -> None:
    chat = tools.app.state.guard.engines["words"].chat
    form = chat.tool_form
    assert (form.begin, form.name, form.arguments, form.end) == (
        "<tool_call>\n",
        "name",
        "arguments",
        "\n</tool_call>",
    )


@pytest.mark.training
@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "find_dose"}}]
)
def test_a_call_that_is_demanded_keeps_to_its_schema(tools: Any, choice: Any) -> None:
    offered = [DOSE] if choice == "required" else [DOSE, AGE]
    asked = ASK | {"tools": offered, "tool_choice": choice, "max_tokens": 80}
    for stream in (False, True):
        answer = tools.post(CHAT, json=asked | {"stream": stream})
        assert answer.status_code == 200, answer.text
        if stream:
            first = json.loads(answer.text.split("\n\n")[0].removeprefix("data: "))
            one = first["choices"][0]
            (call,) = one["delta"]["tool_calls"]
        else:
            one = answer.json()["choices"][0]
            (call,) = one["message"]["tool_calls"]
            assert one["message"]["content"] is None
        assert one["finish_reason"] == "tool_calls" and call["function"]["name"] == "find_dose"
        found = json.loads(call["function"]["arguments"])
        assert set(found) == {"drug", "mg"} and found["drug"] in ("metformin", "aspirin")
    history = [
        *ASK["messages"],
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{k: call[k] for k in ("id", "type", "function")}],
        },
        {"role": "tool", "tool_call_id": call["id"], "content": "500 mg"},
    ]
    answer = tools.post(CHAT, json=ASK | {"tools": [DOSE], "messages": history})
    assert answer.status_code == 200 and answer.json()["usage"]["prompt_tokens"] > 100


def test_calls_among_words_are_read_and_what_is_none_stays_words(tools: Any) -> None:
    from residency.serve.routes.openai import Tooling

    engine = tools.app.state.guard.engines["words"]
    one = '<tool_call>\n{"name": "find_age", "arguments": {"a": "ổ"}}\n</tool_call>'
    made = Tooling(form=engine.reader.tool_form, offered=(), demanded=None, several=True)
    found = made.calls(f"Let me see. {one}{one}")
    assert [call["function"] for call in found] == [
        {"name": "find_age", "arguments": '{"a": "ổ"}'}
    ] * 2
    assert found[0]["id"] != found[1]["id"]
    for words in ("no call", '<tool_call>\n{"name": 3}', '{"name": "find_age", "arguments": {}}'):
        assert made.message(words) == {"content": words}
    single = Tooling(form=made.form, offered=(), demanded=None, several=False)
    assert len(single.calls(f"{one}{one}")) == 1


def test_tools_are_refused_where_the_template_has_none(client: Any) -> None:
    error = client.post(CHAT, json=ASK | {"tools": [DOSE]}).json()["error"]
    assert error["code"] == "no_tools"
    assert client.post(CHAT, json=ASK | {"tools": [DOSE], "tool_choice": "none"}).status_code == 200


@pytest.fixture
def address(tools: Any) -> Any:
    """The same model behind a real server."""
    from serve_tools import Server

    one = Server(tools.app)
    yield one.address
    one.end()


@pytest.mark.server
def test_other_clients_unchanged(address: str) -> None:
    """langchain-openai, litellm, instructor and llm need other versions of what we have, and of each
    other: they live in environments of their own, whose interpreters are named."""
    pythons = os.environ.get("RESIDENCY_CLIENTS_PYTHON", "")
    if not pythons:
        pytest.skip(
            "RESIDENCY_CLIENTS_PYTHON names no interpreters with langchain, litellm, instructor; llm"
        )
    script = str(Path(__file__).with_name("other_clients.py"))
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    offline = clean | {"DO_NOT_TRACK": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    found: dict[str, Any] = {}
    for python in pythons.split(os.pathsep):
        done = subprocess.run(
            [python, script, address, KEY],
            capture_output=True,
            text=True,
            env=offline,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        said = json.loads(done.stdout.splitlines()[-1])
        here = {k for k, v in said.items() if not (isinstance(v, dict) and "absent" in v)}
        found = said | found | {name: said[name] for name in here}
    wrong = {k: v for k, v in found.items() if isinstance(v, dict) and {"absent", "failed"} & {*v}}
    assert not wrong
    first, again, streams = found["ChatOpenAI"]
    assert first == again and streams and found["OpenAI"] > 0
    whole, parts = found["litellm"]
    assert whole == parts
    doses = [*found["with_structured_output"], *found["bind_tools"], *found["instructor"]]
    doses += found["openai"].pop("parsed")
    streamed, said, dose = found["llm"]
    assert streamed == said != ""
    doses.append(dose)
    assert len(doses) == 8 and all(one["drug"] in ("metformin", "aspirin") for one in doses)
    assert found["openai"] == {"logprobs": True, "after": True}


@pytest.mark.server
def test_the_client_of_javascript_unchanged(address: str) -> None:
    folder, node = os.environ.get("RESIDENCY_CLIENTS_NODE", ""), shutil.which("node")
    if not folder or not node:
        pytest.skip("RESIDENCY_CLIENTS_NODE names no folder with node_modules/openai, or no node")
    script = str(Path(__file__).with_name("other_client.mjs"))
    done = subprocess.run(
        [node, script, folder, address, KEY], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["models"] == ["words"] and found["whole"] == found["streamed"] == found["helper"]
    first, again = found["drawn"]
    assert first == again and first[0] != first[1] and 0 < found["usage"] <= 80
    assert found["likely"] and set(found["likely"]) == {2}
    for dose in (found["parsed"], found["called"]):
        assert dose["drug"] in ("metformin", "aspirin") and 1 <= dose["mg"] <= 999
    assert found["refused"] == [404, "model_not_found"]


def test_what_open_webui_sends_is_answered(client: Any) -> None:
    """Its connection is checked by the list of models; what it adds for itself (metadata, features,
    files) it takes out again before it asks, and titles are asked for apart."""
    told = {"X-OpenWebUI-User-Name": "An", "X-OpenWebUI-Chat-Id": "5"}
    assert "words" in {one["id"] for one in client.get("/v1/models", headers=told).json()["data"]}
    parts = [{"type": "text", "text": "肺炎有什么症状？"}]
    history = [
        {"role": "system", "content": "Trả lời ngắn."},
        {"role": "user", "content": "Ho?"},
        {"role": "assistant", "content": "Ho khan."},
        {"role": "user", "content": parts},
    ]
    how = {"temperature": 0.8, "top_p": 0.9, "seed": 0, "max_tokens": 8, "stop": ["###"]}
    body = {"model": "words", "messages": history, "stream": True, **how}
    asked = body | {"stream_options": {"include_usage": True}}
    lines = client.post(CHAT, json=asked, headers=told).text.split("\n\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in events[:-1])
    assert 0 < events[-1]["usage"]["completion_tokens"] <= 8 and lines[-2] == "data: [DONE]"
    title = {"model": "words", "messages": history[3:], "stream": False, "max_completion_tokens": 9}
    (choice,) = client.post(CHAT, json=title, headers=told).json()["choices"]
    assert isinstance(choice["message"]["content"], str) and choice["finish_reason"] != "error"
