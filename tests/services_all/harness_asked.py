"""Run in the environment that has lm-evaluation-harness: the same tasks on a model in process and
behind its server, as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import lm_eval
from lm_eval.tasks import TaskManager

from residency.evals.harness import model_of
from residency.models.causal import CausalPredictor


def asked(tasks: Path, task: str, model: Any, **more: Any) -> dict[str, Any]:
    """Scores of a task, and what was said of each of its items."""
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=[task],
        task_manager=TaskManager(include_path=str(tasks)),
        bootstrap_iters=0,
        log_samples=True,
        **more,
    )
    scores = {
        name: value
        for name, value in found["results"][task].items()
        if isinstance(value, int | float)
    }
    return {
        "scores": scores,
        "said": [
            one["filtered_resps"]
            for one in sorted(found["samples"][task], key=lambda one: one["doc_id"])
        ],
    }


def main() -> None:
    artefact, address, tokenizer, tasks = (
        Path(sys.argv[1]),
        sys.argv[2],
        sys.argv[3],
        Path(sys.argv[4]),
    )
    predictor = CausalPredictor.from_artefact(artefact, device="cpu")
    common = f"model=words,tokenizer_backend=huggingface,tokenizer={tokenizer},max_retries=1,num_concurrent=1"
    texts = f"base_url={address}/v1/completions,tokenized_requests=True,{common}"
    chats = f"base_url={address}/v1/chat/completions,model=words,max_retries=1,num_concurrent=1"
    made = {
        "choices": {
            "in process": asked(tasks, "colours", model_of(predictor, chat=False)),
            "one by one": asked(
                tasks, "colours", "local-completions", model_args=texts, batch_size=1
            ),
            "in batches": asked(
                tasks, "colours", "local-completions", model_args=texts, batch_size=6
            ),
        },
        "answers": {
            "in process": asked(tasks, "open", model_of(predictor)),
            "served": asked(
                tasks, "open", "local-chat-completions", model_args=chats, apply_chat_template=True
            ),
        },
    }
    print("RESULT", json.dumps(made, default=str, ensure_ascii=False))


if __name__ == "__main__":
    main()
