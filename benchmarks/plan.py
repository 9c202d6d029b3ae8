"""Peak memory of a training stage as it is estimated from the configuration, against what its
process held.

    python benchmarks/plan.py

Ten settings: the bundled models and random shapes of 30 to 113 million parameters, each trained for
a few steps in a process of its own. Estimated and measured is the peak of the whole process
(interpreter, libraries, weights, training), in MB.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from _common import child, parser, peak_memory_mb, report, run, say
from residency.core.part import parse
from residency.core.types import Example, Span, Spans, Text, Turn
from residency.models.base import BaseModelSettings, resolve
from residency.tasks.card import Card, Label, load_card

LLAMA = {
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 12,
}
BERT = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
}

SETTINGS: dict[str, dict[str, Any]] = {
    "tiny encoder, full, 32 x 240": {
        "base": "bundled:tiny-encoder",
        "method": {"kind": "full"},
        "micro": 32,
        "tokens": 240,
    },
    "tiny encoder, LoRA, 32 x 240, bf16": {
        "base": "bundled:tiny-encoder",
        "method": {"kind": "lora"},
        "micro": 32,
        "tokens": 240,
        "precision": "bf16",
    },
    "tiny lm, LoRA, 16 x 500": {
        "base": "bundled:tiny-lm",
        "method": {"kind": "lora"},
        "micro": 16,
        "tokens": 500,
    },
    "tiny lm, full, 8 x 900": {
        "base": "bundled:tiny-lm",
        "method": {"kind": "full"},
        "micro": 8,
        "tokens": 900,
    },
    "Llama 69M, LoRA, 8 x 256": {
        "shape": ["llama", LLAMA],
        "method": {"kind": "lora"},
        "micro": 8,
        "tokens": 256,
    },
    "Llama 69M, full, 4 x 256": {
        "shape": ["llama", LLAMA],
        "method": {"kind": "full"},
        "micro": 4,
        "tokens": 256,
    },
    "Llama 69M, LoRA, 8 x 512, checkpointing": {
        "shape": ["llama", LLAMA],
        "method": {"kind": "lora"},
        "micro": 8,
        "tokens": 512,
        "checkpointing": True,
    },
    "Llama 69M, prefix of 64, 4 x 256, bf16": {
        "shape": ["llama", LLAMA],
        "method": {"kind": "prefix", "length": 64},
        "micro": 4,
        "tokens": 256,
        "precision": "bf16",
    },
    "Llama 113M, last 2 layers, 8 x 256": {
        "shape": ["llama", {**LLAMA, "num_hidden_layers": 16, "num_key_value_heads": 4}],
        "method": {"kind": "freeze", "last": 2},
        "micro": 8,
        "tokens": 256,
    },
    "BERT 30M, full, 16 x 250": {
        "shape": ["bert", BERT],
        "method": {"kind": "full"},
        "micro": 16,
        "tokens": 250,
    },
}
WITHIN = 0.15


def main() -> None:
    """Each setting in its process, then the table."""
    options = parser(__doc__)
    options.add_argument("--child", nargs=2, help="name of a setting and the folder of its base")
    given = options.parse_args()
    if given.child:
        print(json.dumps(measured(*given.child)))
        return
    names = list(SETTINGS)[2:4] if given.quick else list(SETTINGS)
    rows, found = [], {}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            base = SETTINGS[name].get("base") or made(folder, *SETTINGS[name]["shape"])
            one, _ = child(
                [__file__, "--threads", str(given.threads), "--child", name, base], given.threads
            )
        found[name] = one
        error = one["planned"] / one["measured"] - 1
        say(
            f"{name}: {one['planned']:.0f} MB planned, {one['measured']:.0f} measured "
            f"({error:+.1%})"
        )
        rows.append(
            [
                name,
                f"{one['parameters'] / 1e6:.0f}M",
                f"{one['planned']:.0f}",
                f"{one['measured']:.0f}",
                f"{error:+.1%}",
            ]
        )
    worst = max(abs(one["planned"] / one["measured"] - 1) for one in found.values())
    columns = ["setting", "parameters", "planned MB", "measured MB", "difference"]
    report("plan", given, columns, rows, worst=worst, within=WITHIN, each=found)
    if worst > WITHIN:
        sys.exit(f"plan: an estimate is off by {worst:.0%}, more than {WITHIN:.0%}")


def made(folder: str, kind: str, shape: dict[str, Any]) -> str:
    """A base of random weights with the bundled tokenizer."""
    import torch
    import transformers

    from residency.models.base import BUNDLED, silent

    source = BUNDLED / ("tiny-lm" if kind == "llama" else "tiny-encoder")
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    config = transformers.AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), max_position_embeddings=512, **shape
    )
    config.pad_token_id, config.bos_token_id, config.eos_token_id = 0, 1, 2
    causal = kind == "llama"
    maker = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
    torch.manual_seed(0)
    with silent():
        maker.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measured(name: str, base_id: str) -> dict[str, Any]:
    """One stage in this process."""
    from residency.train.job import TrainingJob
    from residency.train.stage import Stage
    from residency.train.trainer import train

    setting = SETTINGS[name]
    base = resolve(BaseModelSettings(id=base_id), Path.cwd())
    writes = base.architecture == "causal"
    rows = (questions if writes else sentences)(setting["micro"] * 3, setting["tokens"], base.path)
    stage = {
        "method": setting["method"],
        "steps": 3,
        "micro_batch": setting["micro"],
        "accumulation": 1,
        "precision": setting.get("precision", "fp32"),
        "checkpointing": setting.get("checkpointing", False),
        "stop": None,
    }
    with tempfile.TemporaryDirectory() as work:
        job = TrainingJob(
            stage=parse(Stage, stage, "stage"),
            name="1",
            base=base,
            card=load_card("qa")
            if writes
            else Card(name="ner", family="spans", labels=(Label(name="drug"),)),
            train=rows,
            dev=[],
            seed=0,
            profile="synthetic",
            work=Path(work) / "work",
            out=Path(work) / "out",
            output="text" if writes else "head",
            forecast=True,
        )
        result, _ = train(job)
    return {
        "planned": result.planned_memory_mb,
        "measured": result.peak_memory_mb,
        "process": peak_memory_mb(),
        "parameters": result.parameters,
        "trainable": result.trainable,
    }


WORDS = [
    "the",
    "patient",
    "was",
    "admitted",
    "with",
    "pneumonia",
    "and",
    "takes",
    "metformin",
    "500",
    "mg",
    "twice",
    "daily",
    "no",
    "fever",
]


def text_of(tokens: int, base: str) -> str:
    """Words that make about so many tokens."""
    from residency.models.base import load_tokenizer

    tokenizer = load_tokenizer(Path(base))
    each = len(tokenizer(" ".join(WORDS), add_special_tokens=False)["input_ids"])
    words = WORDS * (tokens // each + 1)
    while len(tokenizer(" ".join(words), add_special_tokens=False)["input_ids"]) > tokens:
        words.pop()
    return " ".join(words)


def questions(count: int, tokens: int, base: str) -> list[Example]:
    """Half question, half answer."""
    half = text_of(tokens // 2 - 12, base)
    return [
        Example(
            id=str(number),
            task="qa",
            input=half,
            gold=Text(text=half),
            turns=(Turn(role="user", text=half),),
            profile="synthetic",
        )
        for number in range(count)
    ]


def sentences(count: int, tokens: int, base: str) -> list[Example]:
    """A drug in the middle of words."""
    text = text_of(tokens - 2, base)
    start = text.index("metformin")
    gold = Spans(spans=(Span(start=start, end=start + 9, label="drug", quote="metformin"),))
    return [
        Example(id=str(number), task="ner", input=text, gold=gold, profile="synthetic")
        for number in range(count)
    ]


if __name__ == "__main__":
    run(main)
