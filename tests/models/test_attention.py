"""Attention by plain matrix products gives what torch's own does."""

from __future__ import annotations

import pytest
import torch
import transformers

from residency.models.attention import leave, use_plain
from residency.models.base import BUNDLED

HEADED = transformers.AutoModelForTokenClassification


def grouped() -> torch.nn.Module:
    """A decoder with fewer heads of keys than of queries, that sees eight tokens back at most."""
    config = transformers.MistralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=8,
        pad_token_id=0,
    )
    model: torch.nn.Module = HEADED.from_config(config)
    return model


@pytest.mark.parametrize("name", ["tiny-encoder", "tiny-lm", "grouped"])
@pytest.mark.parametrize("padded", [False, True])
def test_plain_attention_is_torchs_own(name: str, padded: bool) -> None:
    torch.manual_seed(0)
    found = grouped() if name == "grouped" else HEADED.from_pretrained(BUNDLED / name)
    model = found.float().eval()
    ids = torch.randint(5, 60, (3, 20))
    mask = torch.ones_like(ids)
    if padded:
        mask[0, 12:] = mask[1, 17:] = 0
    said = []
    for change in (lambda _: None, use_plain, leave):
        change(model)
        with torch.inference_mode():
            said.append(model(input_ids=ids, attention_mask=mask).logits[mask.bool()])
    assert model.config._attn_implementation == "sdpa"
    torch.testing.assert_close(said[1], said[0], atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(said[2], said[0], atol=0, rtol=0)


def test_what_is_attended_to_is_not_dropped() -> None:
    model = HEADED.from_pretrained(
        BUNDLED / "tiny-encoder", hidden_dropout_prob=0.0, classifier_dropout=0.0
    )
    model = model.float().train()
    ids = torch.randint(5, 60, (2, 16))
    first = model(input_ids=ids).logits
    assert not torch.equal(first, model(input_ids=ids).logits)  # dropped, by torch's own
    use_plain(model)
    torch.testing.assert_close(model(input_ids=ids).logits, model(input_ids=ids).logits)
