"""Memory and speed of a model that writes, loaded in 4 bits (NF4, double quantisation), on the GPU
at hand.

Prints what arithmetic says (0.516 bytes a weight of linear layers, 2 for the rest, keys and values
of the cache) beside what was measured, and the time per 100 written tokens. Ends with one sentence
where there is no GPU.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from _common import parser, report, run
from residency.core.errors import UserError

PACKED = 0.516
"""Bytes of a 4-bit weight with its scales."""


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--base", required=True, help="a causal model: local folder or hub id on this machine"
    )
    options.add_argument("--prompt", type=int, default=512, help="tokens read (default 512)")
    options.add_argument("--written", type=int, default=512, help="tokens written (default 512)")
    options.add_argument(
        "--card-gb", type=float, default=6, help="memory of the card aimed at (default 6)"
    )
    options.add_argument("--rounds", type=int, default=3)
    given = options.parse_args()
    if given.quick:
        given.prompt, given.written, given.rounds = 16, 16, 1
    import torch

    if not torch.cuda.is_available():
        raise UserError("this measures a GPU, and there is none here; run it where there is one.")
    measure(given)


def measure(given: argparse.Namespace) -> None:
    """Load, write, compare with the estimate."""
    import torch

    from residency.models.base import BaseModelSettings, resolve
    from residency.models.weights import load_causal

    base = resolve(BaseModelSettings(id=given.base, quantise="nf4"), Path.cwd())
    model = load_causal(base, whole=["lm_head"]).eval()
    planned = estimate(model, given.prompt + given.written) / 2**30
    ids = torch.randint(10, model.config.vocab_size, (1, given.prompt), device="cuda")
    settings: dict[str, Any] = {
        "max_new_tokens": given.written,
        "min_new_tokens": given.written,
        "do_sample": False,
    }
    torch.cuda.reset_peak_memory_stats()
    took = []
    with torch.inference_mode():
        for number in range(-1, given.rounds):
            begun = time.perf_counter()
            model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
            torch.cuda.synchronize()
            if number >= 0:
                took.append(time.perf_counter() - begun)
    peak = torch.cuda.max_memory_allocated() / 2**30
    usable = given.card_gb * 1e9 / 2**30 * 0.94 - 0.5
    rows = [
        ["weights and cache, estimated", f"{planned:.2f} GiB"],
        ["peak, measured", f"{peak:.2f} GiB"],
        [f"fits {given.card_gb:g} GB ({usable:.2f} GiB usable)", "yes" if peak <= usable else "no"],
        ["ms per 100 written tokens", f"{1e5 * sorted(took)[len(took) // 2] / given.written:.0f}"],
    ]
    report(
        "serve_4bit",
        given,
        ("what", "value"),
        rows,
        planned_gib=planned,
        peak_gib=peak,
        seconds=took,
    )


def estimate(model: Any, tokens: int) -> float:
    """Bytes of weights and cache."""
    config = model.config
    packed = sum(
        p.quant_state.shape.numel()
        for p in model.parameters()
        if getattr(p, "quant_state", None) is not None
    )
    rest = sum(
        p.numel() * p.element_size()
        for p in model.parameters()
        if getattr(p, "quant_state", None) is None
    )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return PACKED * packed + rest + 2 * 2 * config.num_hidden_layers * heads * width * tokens


if __name__ == "__main__":
    run(main)
