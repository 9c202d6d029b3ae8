"""The contract of every tuning method: it trains what it says, and comes back as it was saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from residency.core.errors import UserError
from residency.models.adapters import ExternalMethod, Full, Lora, Method, lora_targets, method_of
from residency.models.artefact import fresh
from residency.tasks.card import Card, Label

SPANS = Card(name="s", family="spans", labels=(Label(name="a"), Label(name="b")))
CLASSES = Card(
    name="c", family="labels", labels=(Label(name="a"), Label(name="b"), Label(name="c"))
)
METHODS = {
    "lora": Lora(r=4, dropout=0.0),
    "lora attention": Lora(r=4, targets="attention"),
    "lora linear": Lora(r=4, targets="linear"),
    "lora named": Lora(r=4, targets=["query", "value"], alpha=4),
    "full": Full(),
}
IDS = torch.tensor([[2, 30, 40, 50, 3], [2, 31, 41, 51, 3]])


def seeded(base: Any, card: Card, seed: int = 1) -> Any:
    torch.manual_seed(seed)
    return fresh(base, card)


def two_steps(model: Any) -> None:
    torch.manual_seed(2)
    model.train()
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        logits = model(input_ids=IDS).logits
        torch.nn.functional.cross_entropy(
            logits.reshape(-1, logits.shape[-1]),
            torch.ones(logits[..., 0].numel(), dtype=torch.long),
        ).backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=IDS).logits
    return found


@pytest.mark.parametrize("card", [SPANS, CLASSES], ids=["spans", "labels"])
@pytest.mark.parametrize("name", ["electra", "roberta", "bert"])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_method_trains_saves_and_reloads(
    method: Method, name: str, card: Card, found: dict[str, Any], tmp_path: Path
) -> None:
    model = method.attach(seeded(found[name], card))
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    two_steps(model)
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    changed = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert changed and changed <= trained, "what is frozen stays"
    assert any("classifier" in key for key in changed)
    if isinstance(method, Lora):
        assert all("lora_" in key or ".modules_to_save." in key for key in trained)
        assert {key for key in trained if "lora_B" in key} <= changed

    method.save(model, tmp_path)
    expected = logits(model)
    kept = method.load(seeded(found[name], card, seed=99), tmp_path, merge=False).eval()
    assert torch.equal(logits(kept), expected), "a fresh head of another seed leaves no trace"
    merged = method.load(seeded(found[name], card, seed=99), tmp_path, merge=True).eval()
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=0)


def test_an_adapter_holds_its_head_and_not_the_base(found: dict[str, Any], tmp_path: Path) -> None:
    model = Lora(r=2, targets="attention").attach(seeded(found["bert"], CLASSES))
    model_size = sum(p.numel() for p in model.parameters())
    Lora().save(model, tmp_path)
    saved = safetensors.torch.load_file(tmp_path / "adapter_model.safetensors")
    assert not (tmp_path / "model.safetensors").exists()
    assert all("lora_" in key or "classifier" in key or "pooler" in key for key in saved)
    assert any("classifier" in key for key in saved) and any("pooler" in key for key in saved)
    assert sum(tensor.numel() for tensor in saved.values()) < model_size / 5


def test_the_head_never_gets_an_adapter(found: dict[str, Any]) -> None:
    for wanted in ("auto", "linear", "attention"):
        for name, card in (("bert", CLASSES), ("roberta", CLASSES), ("electra", SPANS)):
            targets = lora_targets(seeded(found[name], card), wanted)
            assert targets and not any(
                "classifier" in target or "pooler" in target for target in targets
            )


def test_attention_means_query_key_value_and_output(found: dict[str, Any]) -> None:
    targets = lora_targets(seeded(found["bert"], SPANS), "attention")
    stem = "bert.encoder.layer.0.attention."
    assert set(targets) == {
        stem + name for name in ("self.query", "self.key", "self.value", "output.dense")
    }
    linear = lora_targets(seeded(found["bert"], SPANS), "linear")
    assert set(linear) - set(targets) == {
        f"bert.encoder.layer.0.{name}.dense" for name in ("intermediate", "output")
    }


def test_small_bases_get_adapters_on_every_linear_layer(
    found: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = seeded(found["bert"], SPANS)
    assert lora_targets(model, "auto") == lora_targets(model, "linear")

    class Large:
        named_modules = model.named_modules
        fresh = model.fresh

        def parameters(self) -> list[torch.Tensor]:
            return [torch.empty(400_000_000, device="meta")]

    assert lora_targets(Large(), "auto") == lora_targets(model, "attention")


def test_unknown_targets_are_answered_with_the_allowed_ones(found: dict[str, Any]) -> None:
    with pytest.raises(UserError) as raised:
        Lora(targets=["q_proj", "value"]).attach(seeded(found["bert"], SPANS))
    assert (
        str(raised.value)
        == "method.targets: q_proj not in this base; allowed: dense, key, query, value."
    )


def test_alpha_is_twice_the_rank_where_it_is_not_given(found: dict[str, Any]) -> None:
    scale = {
        method.alpha: method.attach(seeded(found["bert"], SPANS)).peft_config["default"].lora_alpha
        for method in (Lora(r=8), Lora(r=8, alpha=16), Lora(r=8, alpha=4))
    }
    assert scale == {None: 16, 16: 16, 4: 4}


def test_a_method_of_another_package_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere_m.py").write_text(
        "from residency.models.adapters import Full\nclass Mine(Full):\n    depth: int = 1\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    method = method_of(ExternalMethod(target="elsewhere_m:Mine", options={"depth": 3}))
    assert isinstance(method, Method) and method.model_dump()["depth"] == 3


def test_weights_of_another_model_are_refused(found: dict[str, Any], tmp_path: Path) -> None:
    Full().save(seeded(found["roberta"], SPANS), tmp_path)
    with pytest.raises(UserError, match="the weights do not fit this base"):
        Full().load(seeded(found["bert"], SPANS), tmp_path, merge=True)
