"""QLoRA on a model of 7 billion parameters, on one GPU, beside plain peft and the Trainer.

    python benchmarks/qlora_gpu.py

Random weights in the shape of Llama-2-7B, rank 8 on all linear layers, rows of 512 tokens,
effective batch 64, a few optimiser steps. Each system runs in a process of its own, in turn, and
says its peak memory and tokens a second. Needs a GPU, bitsandbytes and torch 2.11 or newer, and
about 14 GB of disk for the weights; says so and measures nothing where there is no GPU.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from _common import child, parser, report, run, say

SHAPE = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 2048,
}
TOKENS, BATCH, RANK = 512, 64, 8
ROUNDS = 3
GOAL_GB, GOAL_RATIO = 14.0, 1.5


def main() -> None:
    """Both systems in turn, then the table."""
    options = parser(__doc__)
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--micro-batch", type=int, default=4)
    options.add_argument("--child", nargs=2, help="system and folder of the base")
    given = options.parse_args()
    import torch

    if not torch.cuda.is_available():
        say(
            "qlora_gpu: there is no GPU here; nothing was measured. residency plan says what the "
            "stage would take."
        )
        return
    if given.child:
        name, base = given.child
        found = (ours if name == "residency" else plain)(Path(base), given.steps, given.micro_batch)
        print(json.dumps(found))
        return
    shape = {**SHAPE, "num_hidden_layers": 2} if given.quick else SHAPE
    with tempfile.TemporaryDirectory() as folder:
        made(Path(folder), shape)
        found: dict[str, list[dict[str, Any]]] = {"plain": [], "residency": []}
        for turn in range(1 if given.quick else ROUNDS):
            for name in sorted(found, reverse=bool(turn % 2)):
                arguments = ["--steps", str(given.steps), "--micro-batch", str(given.micro_batch)]
                one, _ = child([__file__, *arguments, "--child", name, folder], given.threads)
                found[name].append(one)
                say(f"{name}: {one['peak_gb']:.1f} GB, {one['tokens_per_second']:.0f} tokens/s")
    rows = [
        [
            name,
            f"{max(one['peak_gb'] for one in runs):.1f}",
            f"{median(one['tokens_per_second'] for one in runs):.0f}",
        ]
        for name, runs in found.items()
    ]
    pairs = zip(found["residency"], found["plain"], strict=True)
    ratio = median(one["tokens_per_second"] / other["tokens_per_second"] for one, other in pairs)
    say(
        f"speed beside plain peft and the Trainer: {ratio:.2f} (goal {GOAL_RATIO}); goal of the "
        f"peak {GOAL_GB:.0f} GB"
    )
    gpu = torch.cuda.get_device_name()
    report(
        "qlora_gpu",
        given,
        ["system", "peak GB", "tokens/s"],
        rows,
        gpu=gpu,
        ratio=ratio,
        each=found,
    )


def made(folder: Path, shape: dict[str, int]) -> None:
    """A base of random weights with the bundled tokenizer."""
    import torch
    import transformers

    from residency.models.base import BUNDLED, silent

    tokenizer = transformers.AutoTokenizer.from_pretrained(BUNDLED / "tiny-lm")
    config = transformers.LlamaConfig(
        vocab_size=32000, pad_token_id=0, bos_token_id=1, eos_token_id=2, **shape
    )
    torch.manual_seed(0)
    with silent(), torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def ours(base_path: Path, steps: int, micro_batch: int) -> dict[str, Any]:
    """Residency's own stage."""
    from plan import questions
    from residency.core.part import parse
    from residency.models.base import BaseModelSettings, resolve
    from residency.tasks.card import load_card
    from residency.train.job import TrainingJob
    from residency.train.stage import Stage
    from residency.train.trainer import train

    stage = {
        "method": {"kind": "lora", "r": RANK, "targets": "linear"},
        "steps": steps,
        "micro_batch": micro_batch,
        "accumulation": BATCH // micro_batch,
        "learning_rate": 1e-4,
        "checkpointing": True,
        "stop": None,
    }
    with tempfile.TemporaryDirectory() as work:
        job = TrainingJob(
            stage=parse(Stage, stage, "stage"),
            name="1",
            base=resolve(BaseModelSettings(id=str(base_path), quantise="nf4"), Path.cwd()),
            card=load_card("qa"),
            train=questions(BATCH, TOKENS, str(base_path)),
            dev=[],
            seed=0,
            profile="synthetic",
            work=Path(work) / "work",
            out=Path(work) / "out",
            output="text",
            forecast=True,
        )
        result, _ = train(job)
    return {
        "peak_gb": result.peak_memory_mb / 1e3,
        "planned_gb": result.planned_memory_mb / 1e3,
        "tokens_per_second": steps * BATCH * TOKENS / result.seconds,
    }


def plain(base_path: Path, steps: int, micro_batch: int) -> dict[str, Any]:
    """What one writes without Residency, as peft's documentation has it."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    half = torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
    config = transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=half,
    )
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base_path, quantization_config=config, device_map={"": 0}, dtype=half
    )
    model = get_peft_model(
        prepare_model_for_kbit_training(model),
        LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 8000, (BATCH, TOKENS), generator=generator).tolist()
    rows = [
        {"input_ids": row, "labels": [-100] * (TOKENS // 2) + row[TOKENS // 2 :]} for row in ids
    ]
    with tempfile.TemporaryDirectory() as work:
        trainer = transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=work,
                max_steps=steps,
                per_device_train_batch_size=micro_batch,
                gradient_accumulation_steps=BATCH // micro_batch,
                learning_rate=1e-4,
                bf16=half is torch.bfloat16,
                fp16=half is torch.float16,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=rows,
            data_collator=transformers.default_data_collator,
        )
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    return {
        "peak_gb": torch.cuda.max_memory_allocated() / 1e9,
        "tokens_per_second": steps * BATCH * TOKENS / seconds,
    }


if __name__ == "__main__":
    run(main)
