"""A trained prefix is seen by every token and by nobody else, on every architecture, however the
rows are laid out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers

from residency.core.errors import UserError
from residency.models import attention, prefix_layers
from residency.models.adapters import Freeze, Lora, Prefix

pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"
    ),  # peft's old names
]

SIZE = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "pad_token_id": 0,
}
GROUPED = {"num_key_value_heads": 2, "max_position_embeddings": 64}
HEADS = {**GROUPED, "head_dim": 8}
ENCODER = {"max_position_embeddings": 64}
CAUSAL = {
    "llama": transformers.LlamaConfig(**SIZE, **HEADS),
    "qwen2": transformers.Qwen2Config(**SIZE, **GROUPED),
    "qwen3": transformers.Qwen3Config(**SIZE, **HEADS),
    "mistral": transformers.MistralConfig(**SIZE, **HEADS, sliding_window=4),
    "gemma3": transformers.Gemma3TextConfig(**SIZE, **HEADS, sliding_window=4),
    "glm": transformers.GlmConfig(**SIZE, **HEADS),
}
SPECIAL = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
ENCODERS = {
    "bert": transformers.BertConfig(**SIZE, **ENCODER),
    "roberta": transformers.RobertaConfig(**SIZE, **ENCODER),
    "xlm-roberta": transformers.XLMRobertaConfig(**SIZE, **ENCODER),
    "electra": transformers.ElectraConfig(**SIZE, **ENCODER, embedding_size=16),
    "modernbert": transformers.ModernBertConfig(
        **SIZE, **ENCODER, **SPECIAL, local_attention=8, global_attn_every_n_layers=2
    ),
}
ROW = torch.tensor([[7, 20, 30, 40, 50, 60, 70, 80, 90]])


def built(config: Any, kind: Any = transformers.AutoModelForCausalLM) -> Any:
    torch.manual_seed(0)
    return kind.from_config(config).eval()


def with_prefix(model: Any, length: int = 5) -> Any:
    """A model with a prefix that is far from what it began as."""
    torch.manual_seed(1)
    model = Prefix(length=length).attach(model).eval()
    with torch.no_grad():
        for _, one in prefix_layers.prefixes(model):
            one.keys.normal_()
            one.values.normal_()
    return model


def logits(model: Any, ids: torch.Tensor = ROW, **given: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=ids, **given).logits
    return found


def left(ids: torch.Tensor, by: int) -> dict[str, torch.Tensor]:
    mask = torch.cat([torch.zeros(len(ids), by, dtype=torch.long), torch.ones_like(ids)], dim=1)
    return {"ids": torch.nn.functional.pad(ids, (by, 0)), "attention_mask": mask}


@pytest.mark.parametrize("name", CAUSAL)
def test_a_row_padded_on_the_left_gives_what_it_gives_alone(name: str) -> None:
    model = with_prefix(built(CAUSAL[name]))
    padded = left(ROW, 4)
    alone = logits(model)
    torch.testing.assert_close(logits(model, **padded)[:, 4:], alone, atol=1e-5, rtol=0)
    given = (padded["attention_mask"].cumsum(-1) - 1).clamp(min=0)
    torch.testing.assert_close(
        logits(model, **padded, position_ids=given)[:, 4:], alone, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", CAUSAL)
def test_an_answer_is_the_same_with_and_without_cache_and_padding(name: str) -> None:
    model = with_prefix(built(CAUSAL[name]))
    settings = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    padded = left(ROW, 3)
    cached, uncached = (
        model.generate(
            input_ids=ROW, attention_mask=torch.ones_like(ROW), use_cache=use, **settings
        )[0, 9:].tolist()
        for use in (True, False)
    )
    behind = model.generate(
        input_ids=padded["ids"], attention_mask=padded["attention_mask"], **settings
    )
    assert cached == uncached == behind[0, 12:].tolist()


@pytest.mark.parametrize("name", CAUSAL)
def test_documents_laid_end_to_end_see_the_prefix_and_not_each_other(name: str) -> None:
    model = with_prefix(built(CAUSAL[name]))
    rows = [[7, 20, 30, 40, 50, 60], [9, 21], [8, 22, 33, 44]]
    batch = attention.lay_end_to_end(rows, rows)
    batch.pop("labels")
    together = logits(model, batch.pop("input_ids"), **batch)[0]
    alone = torch.cat([logits(model, torch.tensor([row]))[0] for row in rows])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert attention.keeps_apart(model)


@pytest.mark.parametrize("name", ["llama", "gemma3", "bert"])
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    causal = name in CAUSAL
    model = with_prefix(
        built(CAUSAL[name])
        if causal
        else built(ENCODERS[name], transformers.AutoModelForTokenClassification)
    )

    def gradients(checkpointing: bool) -> torch.Tensor:
        model.zero_grad()
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        more = {"use_cache": False} if causal else {}
        model(input_ids=ROW, **more).logits.pow(2).sum().backward()
        return torch.cat([one.keys.grad.flatten() for _, one in prefix_layers.prefixes(model)])

    plain = gradients(False)
    assert plain.abs().max() > 0
    assert torch.equal(gradients(True), plain)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_takes_a_prefix_and_padding_changes_nothing(name: str) -> None:
    model = built(ENCODERS[name], transformers.AutoModelForTokenClassification)
    before = logits(model)
    model = with_prefix(model)
    after = logits(model)
    assert len(list(prefix_layers.prefixes(model))) == 2
    assert (after - before).abs().max() > 1e-5
    padded = {
        "ids": torch.nn.functional.pad(ROW, (0, 4)),
        "attention_mask": torch.tensor([[1] * 9 + [0] * 4]),
    }
    torch.testing.assert_close(logits(model, **padded)[:, :9], after, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_an_encoder_still_reads_its_whole_window(name: str) -> None:
    model = with_prefix(
        built(ENCODERS[name], transformers.AutoModelForTokenClassification), length=30
    )
    longest = 64 if name == "bert" else 62
    assert logits(model, torch.full((1, longest), 9)).shape[1] == longest


def test_a_prefix_longer_than_the_window_begins_in_pieces() -> None:
    model = built(ENCODERS["bert"], transformers.AutoModelForTokenClassification)
    assert {one.length for _, one in prefix_layers.prefixes(Prefix(length=150).attach(model))} == {
        150
    }


def test_a_prefix_begins_as_what_the_model_makes_of_tokens() -> None:
    """So that before training the model reads as if these tokens stood before the text."""
    model = built(CAUSAL["llama"])
    torch.manual_seed(5)
    tokens = torch.randint(100, (4,))
    as_text = logits(model, torch.cat([tokens[None], ROW], dim=1))[:, 4:]
    torch.manual_seed(5)
    torch.testing.assert_close(
        logits(Prefix(length=4).attach(model).eval()), as_text, atol=1e-5, rtol=0
    )


# peft's own checkpoints


@pytest.mark.parametrize("projected", [False, True], ids=["plain", "projected"])
@pytest.mark.parametrize("name", ["llama", "qwen3", "bert", "roberta"])
def test_a_checkpoint_of_peft_comes_in_and_goes_out_bit_for_bit(
    name: str, projected: bool, tmp_path: Path
) -> None:
    import peft

    causal = name in CAUSAL
    kind = (
        transformers.AutoModelForCausalLM
        if causal
        else transformers.AutoModelForTokenClassification
    )
    config = CAUSAL[name] if causal else ENCODERS[name]
    settings = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM" if causal else "TOKEN_CLS",
        num_virtual_tokens=6,
        prefix_projection=projected,
        encoder_hidden_size=16,
    )
    theirs = peft.get_peft_model(built(config, kind), settings).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    theirs.save_pretrained(tmp_path / "theirs")
    mask = torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    rows = ROW.repeat(2, 1)
    expected = logits(theirs, rows, attention_mask=mask)[mask.bool()]

    ours = Prefix(adapter=str(tmp_path / "theirs")).attach(built(config, kind)).eval()
    assert torch.equal(logits(ours, rows, attention_mask=mask)[mask.bool()], expected)
    to_peft(ours, tmp_path / "ours")
    files = [tmp_path / who / "adapter_model.safetensors" for who in ("theirs", "ours")]
    given, returned = (safetensors.torch.load_file(file)["prompt_embeddings"] for file in files)
    assert torch.equal(given, returned)
    if causal:
        back = peft.PeftModel.from_pretrained(built(config, kind), tmp_path / "ours").eval()
        assert torch.equal(logits(back, rows, attention_mask=mask)[mask.bool()], expected)


def to_peft(model: Any, folder: Path) -> None:
    """Write a causal model's prefix as peft's own checkpoint."""
    import peft

    # layers, 2, heads, length, size
    split = torch.stack([torch.stack(one.both()) for _, one in prefix_layers.prefixes(model)])
    layers, _, heads, length, size = split.shape
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=length,
        num_layers=layers,
        num_attention_heads=heads,
        num_transformer_submodules=1,
        token_dim=heads * size,
        inference_mode=True,
    )
    config.save_pretrained(folder)
    table = split.permute(3, 0, 1, 2, 4).reshape(length, -1).detach().contiguous()
    safetensors.torch.save_file({"prompt_embeddings": table}, folder / "adapter_model.safetensors")


# Through a projection


def projected(model: Any, length: int = 6, hidden: int = 16) -> Any:
    torch.manual_seed(2)
    return Prefix(length=length, projection=hidden).attach(model).eval()


@pytest.mark.parametrize("name", ["llama", "qwen3", "bert"])
def test_a_projection_computes_what_pefts_does(name: str) -> None:
    """The weights of peft's encoder in ours, which then begins as nothing: the same logits, and the
    same gradients of its parameters."""
    import peft

    causal = name in CAUSAL
    kind = (
        transformers.AutoModelForCausalLM
        if causal
        else transformers.AutoModelForTokenClassification
    )
    config = CAUSAL[name] if causal else ENCODERS[name]
    settings = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM" if causal else "TOKEN_CLS",
        num_virtual_tokens=6,
        prefix_projection=True,
        encoder_hidden_size=16,
    )
    theirs = peft.get_peft_model(built(config, kind), settings).eval()
    encoder = theirs.prompt_encoder["default"]
    ours = projected(built(config, kind))
    prefix_layers.place(ours, 6)
    for layer, (_, one) in enumerate(prefix_layers.prefixes(ours)):
        assert isinstance(one, prefix_layers.ProjectedPrefix)
        rows = slice(layer * one.last.out_features, (layer + 1) * one.last.out_features)
        with torch.no_grad():
            one.get_buffer("began").zero_()
            one.shared.embedding.copy_(encoder.embedding.weight)
            one.shared.first.load_state_dict(encoder.transform[0].state_dict())
            one.last.weight.copy_(encoder.transform[2].weight[rows])
            one.last.bias.copy_(encoder.transform[2].bias[rows])
    mask = torch.ones_like(ROW)
    found, expected = (model(input_ids=ROW, attention_mask=mask).logits for model in (ours, theirs))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert encoder.transform[2].weight.std() > 0
    found.pow(2).sum().backward()
    expected.pow(2).sum().backward()
    shared = next(prefix_layers.prefixes(ours))[1].shared
    torch.testing.assert_close(
        shared.embedding.grad, encoder.embedding.weight.grad, atol=1e-4, rtol=1e-3
    )


def test_a_projection_begins_as_the_prefix_that_is_there() -> None:
    model = with_prefix(built(CAUSAL["llama"]))
    before = logits(model)
    assert torch.equal(logits(projected(model, length=5)), before)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trained) == 3 + 2 * 2, (
        "what layers share: a vector a position and one layer; each layer: one matrix; with biases"
    )


@pytest.mark.parametrize("name", ["llama", "bert"])
def test_only_what_a_projection_makes_is_kept_and_it_is_a_prefix_like_any(
    name: str, tmp_path: Path
) -> None:
    causal = name in CAUSAL
    kind = (
        transformers.AutoModelForCausalLM
        if causal
        else transformers.AutoModelForTokenClassification
    )
    config = CAUSAL[name] if causal else ENCODERS[name]
    model = projected(built(config, kind))
    with torch.no_grad():
        for _, one in prefix_layers.prefixes(model):
            one.last.weight.normal_()  # type: ignore[operator, union-attr]
    method = Prefix(length=6, projection=16)
    method.save(model, tmp_path)
    kept = {
        key
        for key in safetensors.torch.load_file(tmp_path / "changed.safetensors")
        if ".prefix." in key
    }
    assert len(kept) == 2 * 2 and all(
        key.endswith((".prefix.keys", ".prefix.values")) for key in kept
    )
    again = Prefix(length=6).load(built(config, kind), tmp_path, merge=True).eval()
    if not causal:  # the fresh head is drawn anew
        again.classifier.load_state_dict(model.classifier.state_dict())
    assert torch.equal(logits(again), logits(model))
    if causal:
        to_peft(model, tmp_path / "peft")
        import peft

        theirs = peft.PeftModel.from_pretrained(built(config, kind), tmp_path / "peft").eval()
        mask = torch.ones_like(ROW)
        assert torch.equal(logits(theirs, attention_mask=mask), logits(model, attention_mask=mask))


def test_a_prefix_of_another_base_is_refused(tmp_path: Path) -> None:
    to_peft(with_prefix(built(CAUSAL["llama"])), tmp_path)
    wider = transformers.LlamaConfig(**{**SIZE, "num_hidden_layers": 3}, **HEADS)
    with pytest.raises(
        UserError, match="of another base: it has 64 numbers a position, this base takes 96"
    ) as raised:
        Prefix(adapter=str(tmp_path)).attach(built(wider))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", ["nothing", "lora"])
def test_what_holds_no_prefix_is_refused(content: str, tmp_path: Path) -> None:
    if content == "lora":
        Lora(r=2).attach(built(CAUSAL["llama"])).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"method.adapter: .*(cannot be read|holds no prefix)"):
        Prefix(adapter=str(tmp_path)).attach(built(CAUSAL["llama"]))


# What cannot be


def test_a_model_that_cannot_take_a_prefix_is_refused_in_one_sentence() -> None:
    config = transformers.DebertaV2Config(**SIZE)
    with pytest.raises(UserError) as raised:
        Prefix().attach(built(config, transformers.AutoModelForTokenClassification))
    assert str(raised.value) == (
        "method.kind: prefix: deberta-v2 does not let its attention take a prefix; use lora or "
        "freeze, or another base."
    )


def test_packing_that_ends_leaves_the_prefix_in_place() -> None:
    model = with_prefix(built(CAUSAL["llama"]))
    expected = logits(model)
    attention.leave(model)
    assert model.config._attn_implementation == attention.NAME
    assert torch.equal(logits(model), expected)


def test_layers_that_are_trained_later_leave_the_prefix_as_it_is(tmp_path: Path) -> None:
    """Silent elsewhere: the prefix is saved and the trained layers are lost, or the other way
    round."""
    first = with_prefix(built(CAUSAL["llama"]))
    Prefix(length=5).save(first, tmp_path / "1")
    second = Freeze(last=1).attach(
        Prefix(length=5).load(built(CAUSAL["llama"]), tmp_path / "1", merge=True)
    )
    trained = {name for name, p in second.named_parameters() if p.requires_grad}
    assert trained and all(
        name.startswith("model.layers.1.") and ".prefix." not in name for name in trained
    )
    with torch.no_grad():
        for name, parameter in second.named_parameters():
            if name in trained:
                parameter.add_(0.1)
    Freeze(last=1).save(second, tmp_path / "2")
    again = Prefix(length=5).load(built(CAUSAL["llama"]), tmp_path / "1", merge=True)
    again = Freeze(last=1).load(again, tmp_path / "2", merge=True).eval()
    assert torch.equal(logits(again), logits(second.eval()))
    assert not torch.equal(logits(again), logits(first))


def test_a_prefix_goes_on_from_one_of_the_same_length_only(tmp_path: Path) -> None:
    model = with_prefix(built(CAUSAL["llama"]))
    keys = next(prefix_layers.prefixes(model))[1].keys.detach().clone()
    assert torch.equal(next(prefix_layers.prefixes(Prefix(length=5).attach(model)))[1].keys, keys)
    with pytest.raises(UserError, match=r"method.length: 6 .* this stage starts from \(5\)"):
        Prefix(length=6).attach(model)
