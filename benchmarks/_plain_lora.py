"""LoRA for token classification as its first published account has it: transformers Trainer, peft,
nothing else.

The settings (rank 8, scale 16, attention only, rate 2e-4, 4 rows x 8 accumulated, 6 epochs) come
from models of billions of parameters. ``--rate``, ``--batch``, ``--accumulation`` and ``--epochs``
let a hand tune them. Reads JSON lines of blank-separated words with ``entities``; writes the spans
that it finds in the test file.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, TaskType, get_peft_model
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging


def read(path: Path) -> list[dict[str, Any]]:
    """Rows with ``words``, each word's ``offsets`` and its BIO ``tags``."""
    rows = []
    for line in path.read_text("utf-8").splitlines():
        row = json.loads(line)
        words, offsets, position = row["text"].split(" "), [], 0
        for word in words:
            offsets.append((position, position + len(word)))
            position += len(word) + 1
        tags = ["O"] * len(words)
        for entity in row["entities"]:
            inside = [
                i
                for i, (start, end) in enumerate(offsets)
                if start < entity["end"] and end > entity["start"]
            ]
            for i in inside:
                tags[i] = ("B-" if i == inside[0] else "I-") + entity["label"]
        rows.append({"id": row["id"], "words": words, "offsets": offsets, "tags": tags})
    return rows


def encode(row: dict[str, Any], tokenizer: Any, number: dict[str, int]) -> dict[str, Any]:
    """Model inputs of a row; only the first piece of a word carries its tag."""
    encoded = tokenizer(row["words"], is_split_into_words=True, truncation=True, max_length=512)
    labels, before = [], None
    for word in encoded.word_ids():
        labels.append(-100 if word is None or word == before else number[row["tags"][word]])
        before = word
    return {**encoded, "labels": labels}


def predict(
    model: Any, tokenizer: Any, rows: list[dict[str, Any]], names: list[str]
) -> list[list[str]]:
    """The likeliest tag of each word, read off its first piece."""
    model.eval()
    answers = []
    for start in range(0, len(rows), 32):
        batch = rows[start : start + 32]
        inputs = tokenizer(
            [row["words"] for row in batch],
            is_split_into_words=True,
            truncation=True,
            max_length=512,
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            best = model(**inputs.to(model.device)).logits.argmax(-1).tolist()
        for i, row in enumerate(batch):
            tags = ["O"] * len(row["words"])
            before = None
            for position, word in enumerate(inputs.word_ids(i)):
                if word is not None and word != before:
                    tags[word] = names[best[i][position]]
                before = word
            answers.append(tags)
    return answers


def spans(tags: list[str], offsets: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Entities of BIO tags; an I- that follows no entity of its type begins one, as seqeval reads
    it by default."""
    found: list[dict[str, Any]] = []
    before = "O"
    for tag, (start, end) in zip(tags, offsets, strict=True):
        if tag != "O":
            if tag[0] == "I" and before[2:] == tag[2:]:
                found[-1]["end"] = end
            else:
                found.append({"start": start, "end": end, "label": tag[2:]})
        before = tag
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="where answers (JSON lines) go")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=8)
    parser.add_argument("--epochs", type=float, default=6)
    given = parser.parse_args()
    logging.set_verbosity_error()
    set_seed(given.seed)

    train, test = read(given.train), read(given.test)
    names = ["O", *sorted({tag for row in train for tag in row["tags"]} - {"O"})]
    number = {name: i for i, name in enumerate(names)}
    tokenizer = AutoTokenizer.from_pretrained(given.base)
    model = AutoModelForTokenClassification.from_pretrained(
        given.base, num_labels=len(names), id2label=dict(enumerate(names)), label2id=number
    )
    config = LoraConfig(
        task_type=TaskType.TOKEN_CLS,
        r=8,
        lora_alpha=16,
        lora_dropout=0.05,
        target_modules=["query", "key", "value", "attention.output.dense"],
        modules_to_save=["classifier"],
    )
    trainer = Trainer(
        model=get_peft_model(model, config),
        args=TrainingArguments(
            output_dir=str(given.out.parent / "plain"),
            learning_rate=given.rate,
            per_device_train_batch_size=given.batch,
            gradient_accumulation_steps=given.accumulation,
            num_train_epochs=given.epochs,
            weight_decay=0.0,
            seed=given.seed,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=False,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=[encode(row, tokenizer, number) for row in train],
        data_collator=DataCollatorForTokenClassification(tokenizer),
    )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started

    answers = predict(trainer.model, tokenizer, test, names)
    with given.out.open("w", encoding="utf-8") as file:
        for row, tags in zip(test, answers, strict=True):
            file.write(
                json.dumps({"id": row["id"], "entities": spans(tags, row["offsets"])}) + "\n"
            )
    print(
        json.dumps(
            {
                "seconds": seconds,
                "steps": trainer.state.global_step,
                "threads": torch.get_num_threads(),
            }
        )
    )


if __name__ == "__main__":
    main()
