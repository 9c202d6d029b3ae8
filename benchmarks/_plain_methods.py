"""The script that one writes without Residency: one tuning method with peft and the Trainer on rows
that are already tokens.

    python benchmarks/_plain_methods.py rows.json --base FOLDER --method lora --steps 40 --rate 1e-3
    [--pad max] [--bf16]

Random batches, padded to the longest row of the batch by transformers' own collator, or, as many
published scripts have it, all rows to ``--longest`` tokens. Prints one JSON object: processor
seconds of the training loop, real tokens per second of them, share of padding, trained parameters,
and the loss per label of held-out rows afterwards, one row at a time in fp32.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PrefixTuningConfig, get_peft_model


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("data", type=Path)
    options.add_argument("--base", required=True)
    options.add_argument("--method", choices=("lora", "full", "freeze", "prefix"), required=True)
    options.add_argument("--steps", type=int, required=True)
    options.add_argument("--rate", type=float, required=True)
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--pad", choices=("longest", "max"), default="longest")
    options.add_argument("--longest", type=int, default=512)
    options.add_argument("--bf16", action="store_true")
    sys.stdout.write(json.dumps(measured(options.parse_args())) + "\n")


def measured(given: argparse.Namespace) -> dict[str, Any]:
    """Train, and measure."""
    transformers.set_seed(given.seed)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    data = json.loads(given.data.read_text("utf-8"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(given.base)
    model = tuned(bare(given.base, data["labels"]), given.method, bool(data["labels"]))
    counted = Counted(collator(tokenizer, given, bool(data["labels"])))
    with tempfile.TemporaryDirectory() as work:
        trainer = transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=work,
                max_steps=given.steps,
                per_device_train_batch_size=given.batch,
                learning_rate=given.rate,
                warmup_steps=given.steps // 10,
                bf16=given.bf16,
                use_cpu=not torch.cuda.is_available(),
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
                seed=given.seed,
            ),
            train_dataset=data["rows"],
            data_collator=counted,
        )
        wall, started = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, wall = time.process_time() - started, time.perf_counter() - wall
    return {
        "seconds": seconds,
        "wall_seconds": wall,
        "tokens_per_second": counted.real / seconds,
        "padding": 1 - counted.real / counted.all,
        "trainable": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "loss": held_out(model, data["held"], shifted=not data["labels"]),
    }


def bare(base: str, labels: int) -> Any:
    """The base, with a fresh head where there are labels."""
    if labels:
        return transformers.AutoModelForTokenClassification.from_pretrained(
            base, num_labels=labels, dtype=torch.float32
        )
    return transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def tuned(model: Any, method: str, head: bool) -> Any:
    """The model with only what the method trains left trainable; a head is always trained."""
    outputs = ("classifier", "score", "lm_head")
    linear = [
        name
        for name, one in model.named_modules()
        if isinstance(one, torch.nn.Linear) and name.split(".")[0] not in outputs
    ]
    kind = "TOKEN_CLS" if head else "CAUSAL_LM"
    if method == "lora":
        return get_peft_model(
            model, LoraConfig(r=16, lora_alpha=32, target_modules=linear, task_type=kind)
        )
    if method == "prefix":
        return get_peft_model(model, PrefixTuningConfig(num_virtual_tokens=32, task_type=kind))
    if method == "freeze":
        last = model.config.num_hidden_layers - 2
        for name, parameter in model.named_parameters():
            layer = next((int(part) for part in name.split(".") if part.isdigit()), -1)
            parameter.requires_grad_(layer >= last or (head and name.split(".")[0] in outputs))
    return model


def collator(tokenizer: Any, given: argparse.Namespace, head: bool) -> Any:
    """transformers' collator for labels a token."""
    padding: dict[str, Any] = (
        {"padding": "max_length", "max_length": given.longest} if given.pad == "max" else {}
    )
    kind = (
        transformers.DataCollatorForTokenClassification
        if head
        else transformers.DataCollatorForSeq2Seq
    )
    return kind(tokenizer, **padding)


class Counted:
    """A collator that counts real and padded tokens."""

    def __init__(self, collator: Any) -> None:
        self.collator, self.real, self.all = collator, 0, 0

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        batch: dict[str, torch.Tensor] = self.collator(rows)
        self.real += int(batch["attention_mask"].sum())
        self.all += batch["attention_mask"].numel()
        return batch


def held_out(model: Any, rows: list[dict[str, list[int]]], shifted: bool) -> float:
    """-log p per label, one row at a time, fp32; ``shifted``: a label is predicted from the token
    before it."""
    model.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for row in rows:
            ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].float()
            logits, labels = (logits[:-1], labels[1:]) if shifted else (logits, labels)
            total += torch.nn.functional.cross_entropy(
                logits, labels, ignore_index=-100, reduction="sum"
            ).item()
            count += int((labels != -100).sum())
    return total / count


if __name__ == "__main__":
    main()
