"""The script that one writes without Residency: LoRA on answers with peft and the Trainer, rows
padded.

    python benchmarks/_plain_sft.py conversations.jsonl --base FOLDER --steps 100 --batch 8 [--full]

Prints one JSON object: seconds of the training loop, real tokens per second, share of padding, and
the mean loss of each of the first 32 conversations before training, one at a time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import torch
import transformers
from peft import LoraConfig, get_peft_model


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("data")
    options.add_argument("--base", required=True)
    options.add_argument("--steps", type=int, default=100)
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--bf16", action="store_true")
    given = options.parse_args()
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    tokenizer = transformers.AutoTokenizer.from_pretrained(given.base)
    model = transformers.AutoModelForCausalLM.from_pretrained(given.base, dtype=torch.float32)
    with Path(given.data).open(encoding="utf-8") as file:
        rows = [encode(json.loads(line)["messages"], tokenizer) for line in file]
    with torch.inference_mode():
        losses = [
            model(**{name: torch.tensor([value]) for name, value in row.items()}).loss.item()
            for row in rows[:32]
        ]
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    ]
    model = get_peft_model(
        model, LoraConfig(r=16, lora_alpha=32, target_modules=names, task_type="CAUSAL_LM")
    )
    collator = transformers.DataCollatorForSeq2Seq(tokenizer, padding=True)
    counted = Counted(collator)
    with tempfile.TemporaryDirectory() as work:
        trainer = transformers.Trainer(
            model=model,
            args=transformers.TrainingArguments(
                output_dir=work,
                max_steps=given.steps,
                per_device_train_batch_size=given.batch,
                learning_rate=1e-3,
                bf16=given.bf16,
                use_cpu=not torch.cuda.is_available(),
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                seed=0,
            ),
            train_dataset=rows,
            data_collator=counted,
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    result = {
        "seconds": seconds,
        "tokens_per_second": counted.real / seconds,
        "padding": 1 - counted.real / counted.all,
        "losses": losses,
    }
    sys.stdout.write(json.dumps(result) + "\n")


def encode(
    messages: list[dict[str, str]], tokenizer: transformers.PreTrainedTokenizerBase
) -> dict[str, list[int]]:
    """Tokens of a question and its answer; only the answer and its end are labels."""
    prompt = tokenizer.apply_chat_template(
        messages[:-1], tokenize=False, add_generation_prompt=True
    )
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    rest = tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
    return {
        "input_ids": start + rest,
        "attention_mask": [1] * len(start + rest),
        "labels": [-100] * len(start) + rest,
    }


class Counted:
    """A collator that counts real and padded tokens."""

    def __init__(self, collator: transformers.DataCollatorForSeq2Seq) -> None:
        self.collator, self.real, self.all = collator, 0, 0

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        batch = self.collator(rows)
        self.real += int(batch["attention_mask"].sum())
        self.all += batch["attention_mask"].numel()
        return batch


if __name__ == "__main__":
    main()
