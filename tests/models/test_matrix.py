"""The contract of the methods: every method x every way of answering x every kind of numbers
trains, saves, and comes back bit for bit. A cell that cannot exist is refused in a sentence, here
and in the code."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from residency.core.errors import UserError
from residency.models import artefact
from residency.models.adapters import Freeze, Full, Lora, Method, Prefix
from residency.models.base import Base, BaseModelSettings, resolve
from residency.models.weights import size
from residency.tasks.card import Card, Label

pytestmark = [
    pytest.mark.training,
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
]

SPANS = Card(name="s", family="spans", labels=(Label(name="a"), Label(name="b")))
METHODS: dict[str, Method] = {
    "lora": Lora(r=2),
    "rslora": Lora(r=4, rslora=True, targets="attention"),
    "dora": Lora(r=2, dora=True),
    "prefix": Prefix(length=4),
    "projected prefix": Prefix(length=4, projection=8),
    "freeze last": Freeze(last=1),
    "freeze first": Freeze(first=1, embeddings=True),
    "full": Full(),
}
ANSWERS = {
    "encoder token classification": "bert",
    "causal token classification": "llama",
    "causal generation": "llama",
}
NUMBERS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "bf16": {"dtype": "bf16"},
    "nf4": {"quantise": "nf4"},
    "int8": {"quantise": "int8"},
}
TRAINED_WEIGHTS = (
    "base.dtype: bf16 does not do for weights that are trained; set fp32, or use lora."
)
WHOLE = (
    "base.quantise: full tuning trains every weight, so none may be quantised; set none, or "
    "use lora."
)
NO_DORA = "method.dora: does not work on a base in 8 bits; set base.quantise: nf4, or dora: false."
IMPOSSIBLE = {
    ("freeze last", "bf16"): TRAINED_WEIGHTS,
    ("freeze first", "bf16"): TRAINED_WEIGHTS,
    ("full", "bf16"): TRAINED_WEIGHTS,
    ("full", "nf4"): WHOLE,
    ("full", "int8"): WHOLE,
    ("dora", "int8"): NO_DORA,
}
TOLERANCE = {"fp32": 1e-5, "bf16": 0.05, "nf4": 1e-5, "int8": 0.05}
"""Largest difference of logits of about 1 between a row alone and padded; int8 scales every batch
by its own largest number."""
ROWS = torch.tensor([[12, 30, 40, 50, 13, 20], [12, 31, 41, 51, 13, 21]])
CELLS = list(itertools.product(METHODS, ANSWERS, NUMBERS))
POSSIBLE = [cell for cell in CELLS if (cell[0], cell[2]) not in IMPOSSIBLE]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    shape = {
        "num_hidden_layers": 2,
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_attention_heads": 4,
        "vocab_size": 100,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    root = tmp_path_factory.mktemp("matrix")
    torch.manual_seed(0)
    models = {
        "bert": transformers.BertForMaskedLM(transformers.BertConfig(**shape)),
        "llama": transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**shape, num_key_value_heads=2, eos_token_id=1, bos_token_id=1)
        ),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
    return {name: root / name for name in models}


def base_of(folders: dict[str, Path], answer: str, numbers: str) -> Base:
    return resolve(BaseModelSettings(id=str(folders[ANSWERS[answer]]), **NUMBERS[numbers]))


def output(answer: str) -> Any:
    return "text" if answer == "causal generation" else "head"


def tuned(method: Method, base: Base, answer: str, steps: int = 2) -> Any:
    torch.manual_seed(1)
    model = method.attach(artefact.begin(base, SPANS, output(answer), method))
    model.eval()
    logits(model)  # as the judge does between epochs
    model.train()
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(steps):
        found = model(input_ids=ROWS).logits.float()
        target = torch.ones(found[..., 0].numel(), dtype=torch.long)
        torch.nn.functional.cross_entropy(found.reshape(-1, found.shape[-1]), target).backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()


def logits(model: Any, ids: torch.Tensor = ROWS, **given: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, **given).logits.float()
    return found


@pytest.mark.parametrize(("name", "answer", "numbers"), POSSIBLE)
def test_it_trains_saves_and_comes_back_bit_for_bit(
    name: str, answer: str, numbers: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    method, base = METHODS[name], base_of(folders, answer, numbers)
    model = tuned(method, base, answer)
    untrained = tuned(method, base, answer, steps=0)
    assert not torch.equal(logits(model), logits(untrained)), "two steps change what it answers"
    method.save(model, tmp_path)
    torch.manual_seed(99)
    fresh = artefact.fresh(base, SPANS, output(answer), [method])
    again = method.load(fresh, tmp_path, merge=False).eval()
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize(
    ("name", "answer", "numbers"), [cell for cell in CELLS if cell not in POSSIBLE]
)
def test_what_cannot_be_is_refused_in_a_sentence(
    name: str, answer: str, numbers: str, folders: dict[str, Path]
) -> None:
    with pytest.raises(UserError) as raised:
        tuned(METHODS[name], base_of(folders, answer, numbers), answer)
    assert str(raised.value) == IMPOSSIBLE[name, numbers]


@pytest.mark.parametrize(
    ("name", "numbers"),
    [(name, numbers) for name, answer, numbers in POSSIBLE if answer == "causal generation"],
)
def test_an_answer_is_the_same_cached_uncached_padded_and_alone(
    name: str, numbers: str, folders: dict[str, Path]
) -> None:
    model = tuned(
        METHODS[name], base_of(folders, "causal generation", numbers), "causal generation"
    )
    row = ROWS[:1]
    padded = torch.nn.functional.pad(row, (3, 0))
    mask = torch.tensor([[0] * 3 + [1] * 6])
    alone, behind = logits(model, row), logits(model, padded, attention_mask=mask)[:, 3:]
    torch.testing.assert_close(behind, alone, atol=TOLERANCE[numbers], rtol=0)
    longer = torch.cat([row, torch.tensor([[33, 44]])], dim=1)
    with torch.inference_mode():
        cache = model(input_ids=longer[:, :6], use_cache=True).past_key_values
        rest = model(input_ids=longer[:, 6:], past_key_values=cache).logits.float()
    torch.testing.assert_close(rest, logits(model, longer)[:, 6:], atol=TOLERANCE[numbers], rtol=0)
    if numbers != "fp32":
        return
    settings = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    given = {"input_ids": row, "attention_mask": torch.ones_like(row)}
    written = [
        model.generate(**given, use_cache=use, **settings)[0, 6:].tolist() for use in (True, False)
    ]
    other = model.generate(input_ids=padded, attention_mask=mask, **settings)[0, 9:].tolist()
    assert written[0] == written[1] == other


@pytest.mark.parametrize(("name", "answer"), itertools.product(METHODS, ANSWERS))
def test_merging_gives_what_it_gave_apart(
    name: str, answer: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    method, base = METHODS[name], base_of(folders, answer, "fp32")
    model = tuned(method, base, answer)
    method.save(model, tmp_path)
    merged = method.load(
        artefact.fresh(base, SPANS, output(answer), [method]), tmp_path, merge=True
    ).eval()
    torch.testing.assert_close(logits(merged), logits(model), atol=1e-5, rtol=0)
    assert method.merges == (name in ("lora", "rslora", "dora"))
    extra = size(merged) - size(artefact.fresh(base, SPANS, output(answer), [method]))
    assert extra == (
        0
        if method.merges or "prefix" not in name
        else 2 * 2 * 4 * 64 // (2 if "causal" in answer else 1)
    )


@pytest.mark.parametrize("quantise", ["nf4", "int8"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_trained_is_never_quantised(
    quantise: str, answer: str, folders: dict[str, Path]
) -> None:
    """Elsewhere: only tensors of floating point dtype can require gradients."""
    import bitsandbytes

    base = base_of(folders, answer, quantise)
    model = Freeze(last=1).attach(artefact.begin(base, SPANS, output(answer), Freeze(last=1)))
    small = {
        n
        for n, m in model.named_modules()
        if isinstance(m, bitsandbytes.nn.Linear4bit | bitsandbytes.nn.Linear8bitLt)
    }
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert small and trained
    assert not any(name.startswith(module + ".") for name in trained for module in small)
    assert all(".0." in name for name in small), "the layer that is not trained, and nothing else"
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)


def test_a_quantised_base_counts_every_parameter(folders: dict[str, Path]) -> None:
    plain, small = (
        artefact.fresh(base_of(folders, "causal generation", n), SPANS, "text")
        for n in ("fp32", "nf4")
    )
    assert size(small) == size(plain)


@pytest.mark.parametrize("name", ["lora", "prefix", "freeze last"])
def test_evaluation_leaves_4_bit_weights_as_they_were(name: str, folders: dict[str, Path]) -> None:
    """Silent elsewhere: on a CPU with AVX512-BF16 they are repacked, and later gradients are wrong."""
    base, method = base_of(folders, "causal generation", "nf4"), METHODS[name]

    def gradients(evaluate: bool) -> torch.Tensor:
        torch.manual_seed(1)
        model = method.attach(artefact.begin(base, SPANS, "text", method))
        flags = [
            m.support_avx512bf16_for_cpu
            for m in model.modules()
            if hasattr(m, "support_avx512bf16_for_cpu")
        ]
        assert flags and not any(flags)
        if evaluate:
            logits(model.eval())
        model.train()
        model(input_ids=ROWS).logits.pow(2).mean().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    assert torch.equal(gradients(True), gradients(False))


def test_4_bits_without_the_library_are_refused_in_a_sentence(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *more: None if name == "bitsandbytes" else found(name, *more),
    )
    with pytest.raises(UserError) as raised:
        artefact.fresh(base_of(folders, "causal generation", "nf4"), SPANS, "text")
    assert str(raised.value) == (
        'base.quantise: nf4 needs bitsandbytes; run pip install "residency[quantise]", or set none.'
    )


def test_a_layer_too_many_is_refused_in_a_sentence(folders: dict[str, Path]) -> None:
    model = artefact.fresh(base_of(folders, "causal generation", "fp32"), SPANS, "text")
    for which in ("last", "first"):
        with pytest.raises(UserError) as raised:
            Freeze(**{which: 5}).attach(model)
        assert (
            str(raised.value)
            == f"method.{which}: 5 is more than this base's 2 layers; give at most 2."
        )


# Going on from what others published


def test_a_published_adapter_is_trained_further_with_its_own_settings(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    base = base_of(folders, "causal generation", "fp32")
    theirs = tuned(Lora(r=3, alpha=5, targets=["q_proj", "v_proj"]), base, "causal generation")
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Lora(adapter=str(tmp_path / "theirs"))
    torch.manual_seed(7)
    model = ours.attach(artefact.begin(base, SPANS, "text", ours))
    assert torch.equal(logits(model.eval()), logits(theirs))
    assert {
        p.shape[0] for n, p in model.named_parameters() if "lora_A" in n and p.requires_grad
    } == {3}
    assert any(p.requires_grad for p in model.parameters())


def test_a_published_adapter_gets_the_new_head_saved_with_it(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """Silent elsewhere: an adapter without a head is trained further, and the head is lost at
    saving."""
    base = base_of(folders, "causal token classification", "fp32")
    theirs = tuned(Lora(r=2), base_of(folders, "causal generation", "fp32"), "causal generation")
    theirs.save_pretrained(tmp_path / "theirs")
    ours = Lora(adapter=str(tmp_path / "theirs"))
    model = tuned(ours, base, "causal token classification")
    ours.save(model, tmp_path / "ours")
    torch.manual_seed(99)
    again = ours.load(
        artefact.fresh(base, SPANS, "head", [ours]), tmp_path / "ours", merge=False
    ).eval()
    assert torch.equal(logits(again), logits(model))


def test_an_adapter_of_another_base_or_kind_is_refused(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    theirs = tuned(
        Lora(r=2),
        base_of(folders, "encoder token classification", "fp32"),
        "encoder token classification",
    )
    theirs.save_pretrained(tmp_path / "theirs")
    causal = base_of(folders, "causal generation", "fp32")
    for folder, words in (
        (tmp_path / "theirs", "does not fit this base"),
        (tmp_path, "holds no adapter that can be read"),
    ):
        method = Lora(adapter=str(folder))
        with pytest.raises(UserError, match=words) as raised:
            method.attach(artefact.begin(causal, SPANS, "text", method))
        assert "\n" not in str(raised.value)


def test_an_adapter_brings_its_own_rank() -> None:
    from residency.core.part import parse

    with pytest.raises(UserError, match="adapter brings its own r; leave it out"):
        parse(Lora, {"adapter": "x", "r": 4}, "stages[0].method")
