"""What langchain, litellm, instructor and llm get from the server, unchanged; run by an interpreter that
has them. Arguments: the server's address, its key. Prints what each call gave, as JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Dose(BaseModel):
    """The dose of a drug."""

    model_config = ConfigDict(extra="forbid")  # a model that has learned nothing invents fields
    drug: Literal["metformin", "aspirin"]
    mg: int = Field(ge=1, le=999)


ADDRESS, KEY = sys.argv[1] + "/v1", sys.argv[2]
ASK = [{"role": "user", "content": "Which drug?"}]
FOUND: dict[str, Any] = {}


def call(name: str) -> Callable[[Callable[[], Any]], None]:
    def run(given: Callable[[], Any]) -> None:
        try:
            FOUND[name] = given()
        except ImportError as error:
            FOUND[name] = {"absent": str(error.name)}
        except Exception as error:
            FOUND[name] = {"failed": f"{type(error).__name__}: {str(error)[:300]}"}

    return run


def chat(**more: Any) -> Any:
    from langchain_openai import ChatOpenAI

    how = {"base_url": ADDRESS, "api_key": KEY, "model": "words", "max_retries": 0}
    return ChatOpenAI(**how, max_tokens=80, **more)


@call("ChatOpenAI")
def _() -> Any:
    llm = chat(temperature=1, seed=5)
    return [llm.invoke("Q?").content, llm.invoke("Q?").content, len([*llm.stream("Q?")]) > 0]


@call("OpenAI")
def _() -> Any:
    from langchain_openai import OpenAI

    how = {"base_url": ADDRESS, "api_key": KEY, "model": "words", "max_retries": 0}
    return len(OpenAI(**how, max_tokens=8).invoke("Asthma is"))


@call("with_structured_output")
def _() -> Any:
    return [
        chat().with_structured_output(Dose, method=method).invoke("Dose?").model_dump()
        for method in ("json_schema", "function_calling")
    ]


@call("bind_tools")
def _() -> Any:
    said = chat().bind_tools([Dose], tool_choice="any").invoke("Dose?")
    return [one["args"] for one in said.tool_calls]


@call("litellm")
def _() -> Any:
    import litellm

    litellm.telemetry = False
    how = {"api_base": ADDRESS, "api_key": KEY, "max_tokens": 8, "num_retries": 0}
    whole = litellm.completion("openai/words", ASK, **how).choices[0].message.content
    parts = litellm.completion("openai/words", ASK, **how, stream=True)
    return [whole, "".join(one.choices[0].delta.content or "" for one in parts)]


@call("instructor")
def _() -> Any:
    import instructor
    from openai import OpenAI

    client = OpenAI(base_url=ADDRESS, api_key=KEY, max_retries=0)
    found = []
    for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):
        made = instructor.from_openai(client, mode=mode).chat.completions
        given = {"model": "words", "messages": ASK, "response_model": Dose, "max_tokens": 80}
        found.append(made.create(**given).model_dump())
    return found


@call("llm")
def _() -> Any:
    import llm  # noqa: F401 - the command is asked, where it is there

    with tempfile.TemporaryDirectory() as folder:
        model = {
            "model_id": "ward",
            "model_name": "words",
            "api_base": ADDRESS,
            "api_key_name": "ward",
        }
        more = {"supports_schema": True, "supports_tools": True}
        (Path(folder) / "extra-openai-models.yaml").write_text(json.dumps([model | more]))

        def ask(*words: str) -> str:
            done = subprocess.run(
                [Path(sys.executable).with_name("llm"), "-m", "ward", "--key", KEY, "-n", *words],
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"LLM_USER_PATH": folder},
            )
            if done.returncode:
                raise RuntimeError(done.stderr)
            return done.stdout.strip()

        how = ("Which drug?", "-o", "max_tokens", "40")
        dose = json.dumps(Dose.model_json_schema())
        return [ask(*how), ask(*how, "--no-stream"), json.loads(ask(*how, "--schema", dose))]


@call("openai")
def _() -> Any:
    from openai import OpenAI

    made = OpenAI(base_url=ADDRESS, api_key=KEY, max_retries=0).chat.completions
    how: dict[str, Any] = {"model": "words", "messages": ASK, "max_tokens": 80}
    parsed = made.parse(**how, response_format=Dose, n=2, temperature=1, seed=1, logprobs=True)
    kept = parsed.choices[0].message.model_dump(exclude={"parsed"})
    more = made.create(**{**how, "messages": [*ASK, kept, *ASK], "max_tokens": 8})
    likely = parsed.choices[0].logprobs
    return {
        "parsed": [one.message.parsed.model_dump() for one in parsed.choices],
        "logprobs": len(likely.content) > 0,
        "after": more.choices[0].message.content is not None,
    }


print(json.dumps(FOUND))
