"""The scripts that one writes without Residency: transformers, peft, the Trainer, nothing else.

Each function is called in a process of its own, and imports what it needs there.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any


def fit(model: Any, rows: list[Any], collator: Any, **arguments: Any) -> dict[str, Any]:
    """The Trainer's loop: seconds of the clock and of the processor, real tokens a second of each,
    the share of padding, the steps."""
    import transformers

    counted = _Counted(collator)
    with tempfile.TemporaryDirectory() as work:
        given = transformers.TrainingArguments(work, **_quietly(), **arguments)
        rows_of = {"train_dataset": rows, "data_collator": counted}
        seconds = _timed(transformers.Trainer(model=model, args=given, **rows_of))
    return {
        **seconds,
        **{f"tokens_per_{name[:-1]}": counted.real / took for name, took in seconds.items()},
        "padding": 1 - counted.real / counted.all,
    }


def _quietly() -> dict[str, Any]:
    """Arguments of a training that says and saves nothing."""
    import torch

    never = dict.fromkeys(("logging_strategy", "save_strategy"), "no")
    quiet = {"report_to": "none", "disable_tqdm": True, "dataloader_pin_memory": False}
    return {**never, **quiet, "use_cpu": not torch.cuda.is_available()}


def _timed(trainer: Any) -> dict[str, float]:
    """Train; seconds of the clock and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    trainer.train()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


class _Counted:
    """A collator that counts real and padded tokens."""

    def __init__(self, collator: Any) -> None:
        self.collator, self.real, self.all = collator, 0, 0

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.collator(rows)
        mask = batch.get("attention_mask", batch["input_ids"] >= 0)
        self.real += int(mask.sum())
        self.all += mask.numel()
        return batch


def _quiet(seed: int = 0) -> None:
    import transformers

    transformers.set_seed(seed)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def _linear(model: Any, *but: str) -> list[str]:
    import torch

    found = model.named_modules()
    names = [name for name, one in found if isinstance(one, torch.nn.Linear)]
    return [name for name in names if name.split(".")[0] not in but]


def method(data: dict[str, Any], base: str, given: dict[str, Any]) -> dict[str, Any]:
    """A method with peft and the Trainer: random batches, padded to the longest row of the batch by
    transformers' own collator or, where ``longest`` is given, all rows to so many tokens.

    The data are ``rows``, ``held`` and the number of ``labels`` (0: a causal model). Also the loss
    per label of held-out rows afterwards, and the likeliest label of each of their tokens.
    """
    import torch
    import transformers as t

    _quiet(given["arguments"]["seed"])
    head, longest = data["labels"], given.get("longest")
    kind = t.AutoModelForTokenClassification if head else t.AutoModelForCausalLM
    more = {"num_labels": head} if head else {}
    model = kind.from_pretrained(base, dtype=torch.float32, **more)
    model = _tuned(model, given["method"], bool(head))
    padding = {"padding": "max_length", "max_length": longest} if longest else {}
    collator = t.DataCollatorForTokenClassification if head else t.DataCollatorForSeq2Seq
    collator = collator(t.AutoTokenizer.from_pretrained(base), **padding)
    result = fit(model, data["rows"], collator, **given["arguments"])
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    loss, tags = held_out(model, data["held"], shifted=not head)
    return {**result, "trainable": trainable, "loss": loss, "tags": tags if head else []}


def _tuned(model: Any, method: str, head: bool) -> Any:
    """The model with only what the method trains left trainable; a head is always trained."""
    from peft import LoraConfig, PrefixTuningConfig, get_peft_model

    outputs = ("classifier", "score", "lm_head")
    kind = "TOKEN_CLS" if head else "CAUSAL_LM"
    if method == "lora":
        how = {"r": 16, "lora_alpha": 32, "target_modules": _linear(model, *outputs)}
        return get_peft_model(model, LoraConfig(task_type=kind, **how))
    if method == "prefix":
        return get_peft_model(model, PrefixTuningConfig(num_virtual_tokens=32, task_type=kind))
    if method == "freeze":
        last = model.config.num_hidden_layers - 2
        for name, parameter in model.named_parameters():
            layer = next((int(part) for part in name.split(".") if part.isdigit()), -1)
            parameter.requires_grad_(layer >= last or (head and name.split(".")[0] in outputs))
    return model


def loop(
    rows: list[Any], held: list[Any], labels: int, base: str, seed: int, passes: int
) -> list[list[int]]:
    """A loop by hand over all layers but the embeddings; the likeliest tag of each held token."""
    import torch
    import transformers as t

    _quiet(seed)
    model = t.AutoModelForTokenClassification.from_pretrained(
        base, dtype=torch.float32, num_labels=labels
    )
    parts: dict[bool, list[Any]] = {True: [], False: []}
    for name, weight in model.named_parameters():
        weight.requires_grad_("embeddings" not in name)
        parts[name.startswith("classifier")] += [weight] if weight.requires_grad else []
    rates = [{"params": parts[head], "lr": 1e-3 if head else 1e-4} for head in (True, False)]
    optimizer, steps = torch.optim.AdamW(rates), passes * -(-len(rows) // 16)
    schedule = t.get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    collate = t.DataCollatorForTokenClassification(t.AutoTokenizer.from_pretrained(base))
    batches = torch.utils.data.DataLoader(rows, 16, shuffle=True, collate_fn=lambda batch: batch)
    for batch in (batch for _ in range(passes) for batch in batches):
        count = sum(label != -100 for row in batch for label in row["labels"])
        for at in range(0, len(batch), 4):
            given = collate(batch[at : at + 4])
            targets = given.pop("labels").flatten()
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(**given).logits.float().flatten(0, 1)
            (torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / count).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return held_out(model, held, shifted=False)[1]


def held_out(
    model: Any, rows: list[dict[str, list[int]]], shifted: bool
) -> tuple[float, list[list[int]]]:
    """-log p per label and each token's likeliest label, one row at a time, fp32; ``shifted``: a
    label is predicted from the token before it."""
    import torch

    model.eval()
    total, count, tags = 0.0, 0, []
    loss = torch.nn.functional.cross_entropy
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0].float()
        tags.append(logits.argmax(-1).tolist())
        logits, labels = (logits[:-1], labels[1:]) if shifted else (logits, labels)
        total += loss(logits, labels, ignore_index=-100, reduction="sum").item()
        count += int((labels != -100).sum())
    return total / max(count, 1), tags


def trl(pairs: list[tuple[str, str]], base: str, given: dict[str, Any]) -> dict[str, Any]:
    """TRL's trainer with LoRA and packing: rows of 1,024 tokens, as many as hold about a batch."""
    import torch
    import transformers
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    _quiet()
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules=_linear(model, "lm_head"))
    sides = (("prompt", "user"), ("completion", "assistant"))
    each = (zip(sides, pair, strict=True) for pair in pairs)
    rows = [{side: [{"role": who, "content": text}] for (side, who), text in one} for one in each]
    packing = {"packing": True, "packing_strategy": "bfd", "max_length": 1024}
    steps = {"max_steps": given["steps"], "per_device_train_batch_size": 1, "bf16": given["bf16"]}
    rate = {"learning_rate": given["rate"], "gradient_checkpointing": False}
    with tempfile.TemporaryDirectory() as work:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(work, **_quietly(), **packing, **steps, **rate),
            train_dataset=Dataset.from_list(rows),
            processing_class=transformers.AutoTokenizer.from_pretrained(base),
            peft_config=lora,
        )
        real, count = sum(map(len, trainer.train_dataset["input_ids"])), len(trainer.train_dataset)
        seconds = _timed(trainer)
    tokens = given["steps"] * real / count
    rates = {f"tokens_per_{name[:-1]}": tokens / took for name, took in seconds.items()}
    return {**seconds, **rates, "padding": 1 - real / (count * 1024)}


def four_bits(
    base: str, steps: int, micro_batch: int, batch: int, tokens: int, rank: int
) -> dict[str, Any]:
    """Peak memory (GB) and tokens a second of QLoRA on random rows."""
    import torch
    import transformers
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    half = torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
    how = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
    how |= {"load_in_4bit": True, "bnb_4bit_compute_dtype": half}
    given = {"quantization_config": transformers.BitsAndBytesConfig(**how), "device_map": {"": 0}}
    model = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=half, **given)
    linear = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, **linear)
    model = get_peft_model(prepare_model_for_kbit_training(model), lora)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 8000, (batch, tokens), generator=generator).tolist()
    half_way = tokens // 2
    torch.cuda.reset_peak_memory_stats()
    rows = [{"input_ids": row, "labels": [-100] * half_way + row[half_way:]} for row in ids]
    how = {"max_steps": steps, "per_device_train_batch_size": micro_batch, "learning_rate": 1e-4}
    how |= {"gradient_accumulation_steps": batch // micro_batch}
    how |= {"bf16": half is torch.bfloat16, "fp16": half is torch.float16}
    result = fit(model, rows, transformers.default_data_collator, **how)
    speed = steps * batch * tokens / result["seconds"]
    return {"peak_gb": torch.cuda.max_memory_allocated() / 1e9, "tokens_per_second": speed}


def pipeline(model: str, source: str, output: str, warm: int) -> dict[str, Any]:
    """A pipeline that is called note by note; the tags of every token, a line each."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    texts = [json.loads(line)["text"] for line in Path(source).read_text("utf-8").splitlines()]
    tagger = transformers.pipeline(
        "token-classification", model=model, aggregation_strategy="none", ignore_labels=[]
    )
    for text in texts[:warm]:
        tagger(text)
    started = time.perf_counter()
    answers = [tagger(text) for text in texts]
    seconds = time.perf_counter() - started
    lines = [json.dumps([token["entity"] for token in answer]) + "\n" for answer in answers]
    Path(output).write_text("".join(lines), "utf-8")
    return {"notes": len(texts), "seconds": seconds}


def tagged(model: Any, tokenizer: Any, texts: list[str]) -> list[list[tuple[int, int, str]]]:
    """What a short script of a few lines does with a model and a tokenizer at hand."""
    import torch

    given = tokenizer(
        texts, padding=True, truncation=True, return_tensors="pt", return_offsets_mapping=True
    )
    offsets = given.pop("offset_mapping").tolist()
    with torch.inference_mode():
        chosen = model(**given).logits.argmax(-1).tolist()
    names = model.config.id2label
    return [
        [(a, b, names[tag]) for (a, b), tag in zip(places, tags, strict=True) if b > a]
        for places, tags in zip(offsets, chosen, strict=True)
    ]


def app() -> Any:
    """A server as one writes it in an afternoon: FastAPI, a pipeline of transformers, one call of
    the model per request."""
    import os

    import transformers
    from fastapi import Body, FastAPI

    how = {"model": os.environ["PLAIN_MODEL"], "aggregation_strategy": "simple"}
    find, made = transformers.pipeline("token-classification", **how), FastAPI()

    def extract(text: str = Body(embed=True)) -> dict[str, Any]:
        found = []
        for one in find(text):
            place = {"start": int(one["start"]), "end": int(one["end"])}
            found.append({**place, "label": one["entity_group"], "score": float(one["score"])})
        return {"entities": found}

    made.post("/extract")(extract)
    made.get("/readyz")(lambda: {"status": "ok"})
    return made
