"""Long runs: what goes wrong on the way is caught, named and mended where it can be."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_training import NER, Killed, assert_equal, drug_rows, job, losses, stage, weights

from residency.core.errors import UserError
from residency.models.adapters import Freeze, Full, Lora, Prefix
from residency.train import estimate, trainer
from residency.train.batches import BLANK, LengthBatches
from residency.train.device import Device
from residency.train.judge import MARKER
from residency.train.recovery import Recovery, fault, read_recovery
from residency.train.stage import Stop
from residency.train.stage_trainer import StageTrainer
from residency.train.trainer import train

pytestmark = pytest.mark.training

METHODS = {
    "lora": Lora(r=2, dropout=0.1),
    "prefix": Prefix(length=4),
    "projected prefix": Prefix(length=4, projection=8),
    "freeze": Freeze(last=1),
    "full": Full(),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_every_method_goes_on_from_a_state_saved_by_steps(
    method: Any, found: dict[str, Any], tmp_path: Path
) -> None:
    """33 rows in 2 x 2 of similar length, states every 7 steps: in the middle of the second epoch
    and between logged steps."""
    rows = drug_rows(33)
    chosen = stage(
        method=method,
        epochs=3,
        micro_batch=2,
        accumulation=2,
        learning_rate=1e-2,
        stop=Stop(patience=9),
        save_every=7,
    )
    base = found["electra"]
    whole, _ = train(job(base, tmp_path / "whole", NER, rows, chosen, dev=rows[:4]))

    def kill(step: int, *_: Any) -> None:
        if step == 17:
            raise Killed

    with pytest.raises(Killed):
        train(job(base, tmp_path / "cut", NER, rows, chosen, dev=rows[:4], progress=kill))
    assert [path.name for path in (tmp_path / "cut/work").iterdir()] == ["checkpoint-14"]
    resumed, _ = train(job(base, tmp_path / "cut", NER, rows, chosen, dev=rows[:4]))
    assert resumed.history == whole.history and len(losses(whole)) == 27
    assert_equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Losses are not a number in the training steps that the list names, as often as it names them."""
    steps: list[int] = []
    real = StageTrainer.compute_loss

    def loss(self: StageTrainer, *args: Any, **kwargs: Any) -> Any:
        value = real(self, *args, **kwargs)
        if self.state.global_step + 1 in steps:
            steps.remove(self.state.global_step + 1)
            return value * math.nan
        return value

    monkeypatch.setattr(StageTrainer, "compute_loss", loss)
    return steps


def test_a_loss_that_is_not_a_number_goes_back_to_the_last_good_state_with_half_the_rate(
    spoiled: list[int], found: dict[str, Any], tmp_path: Path
) -> None:
    spoiled.append(7)
    chosen = stage(
        method=Lora(r=2),
        steps=10,
        batch=4,
        learning_rate=1e-2,
        schedule="constant",
        warmup=0,
        save_every=5,
    )
    result, _ = train(job(found["electra"], tmp_path, NER, drug_rows(12), chosen))
    assert (
        result.recovered
        == "the loss is not a number at step 7, went back to step 5 with half the rate"
    )
    rates = {int(entry["step"]): entry["learning_rate"] for entry in result.history}
    assert [rates[step] for step in (4, 5, 6, 10)] == pytest.approx([1e-2, 1e-2, 5e-3, 5e-3])
    assert all(math.isfinite(loss) for loss in losses(result)) and len(losses(result)) == 10
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights(tmp_path).values())


def test_a_second_divergence_ends_with_a_sentence_and_the_last_good_state(
    spoiled: list[int], found: dict[str, Any], tmp_path: Path
) -> None:
    spoiled += [7, 8]
    chosen = stage(method=Lora(r=2), steps=10, batch=4, learning_rate=1e-2, save_every=5)
    with pytest.raises(
        UserError,
        match=r"not a number at step 8, for the second time .* is that of step 5; .* below 0.005",
    ) as refused:
        train(job(found["electra"], tmp_path, NER, drug_rows(12), chosen))
    assert "\n" not in str(refused.value)
    assert (tmp_path / "work/checkpoint-5" / MARKER).is_file()
    assert read_recovery(tmp_path / "work").rate == 0.5


@pytest.mark.parametrize(
    ("loss", "first", "norm", "words"),
    [
        (0.5, 1.0, 1.0, ""),
        (4.9, 1.0, 1.0, ""),
        (5.1, 1.0, 1.0, "the loss rose from 1 to 5.1"),
        (math.inf, 1.0, 1.0, "the loss is not a number"),
        (0.5, 1.0, math.nan, "the gradient is not a number"),
    ],
)
def test_what_counts_as_diverged(loss: float, first: float, norm: float, words: str) -> None:
    assert fault(loss, first, norm) == words


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A machine whose memory holds two rows."""
    seen: list[int] = []
    real = StageTrainer.compute_loss

    def loss(self: StageTrainer, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        rows = len(inputs["input_ids"])
        seen.append(rows)
        if rows > 2:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
            )
        return real(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(StageTrainer, "compute_loss", loss)
    return seen


def test_out_of_memory_halves_the_micro_batch_and_keeps_the_effective_one(
    small: list[int], found: dict[str, Any], tmp_path: Path
) -> None:
    chosen = stage(method=Lora(r=2), steps=3, batch=8)
    result, _ = train(job(found["electra"], tmp_path, NER, drug_rows(16), chosen))
    assert result.settings["batch"] == "8 (2 x 4)"
    assert result.recovered.count("out of memory") == 2 and max(small[-12:]) == 2
    whole, _ = train(
        job(
            found["electra"],
            tmp_path / "given",
            NER,
            drug_rows(16),
            stage(method=Lora(r=2), steps=3, micro_batch=2, accumulation=4),
        )
    )
    assert losses(result) == losses(whole)


def test_out_of_memory_halves_a_micro_batch_that_the_plan_chose(
    small: list[int], found: dict[str, Any], tmp_path: Path
) -> None:
    chosen = stage(method=Lora(r=2), steps=2, batch=8, micro_batch="auto")
    result, _ = train(job(found["electra"], tmp_path, NER, drug_rows(16), chosen))
    assert result.settings["batch"] == "8 (2 x 4)" and result.recovered


@pytest.mark.parametrize(("usable", "micro"), [(math.inf, 8), (0.0, 1)])
def test_the_plan_chooses_the_micro_batch_by_the_memory_at_hand_and_leaves_the_effective_batch(
    usable: float,
    micro: int,
    found: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(kind="cpu", name="a toy", usable=usable, bf16=False)
    monkeypatch.setattr(estimate, "device_here", lambda: device)
    auto = stage(method=Lora(r=2), steps=2, batch=8, micro_batch="auto")
    result, _ = train(job(found["electra"], tmp_path / "auto", NER, drug_rows(16), auto))
    assert result.settings["batch"] == f"8 ({micro} x {8 // micro})"
    given = stage(method=Lora(r=2), steps=2, micro_batch=micro, accumulation=8 // micro)
    asked, _ = train(job(found["electra"], tmp_path / "given", NER, drug_rows(16), given))
    assert losses(asked) == losses(result)


def test_out_of_memory_with_a_given_micro_batch_is_one_sentence(
    small: list[int], found: dict[str, Any], tmp_path: Path
) -> None:
    chosen = stage(method=Lora(r=2), steps=3, micro_batch=4, accumulation=1)
    with pytest.raises(UserError, match="memory ran out with micro_batch 4; set micro_batch lower"):
        train(job(found["electra"], tmp_path, NER, drug_rows(16), chosen))


@pytest.mark.parametrize(("free", "steady"), [(math.inf, False), (1e6, True)])
def test_memory_is_returned_at_once_only_where_the_estimate_leaves_little(
    free: float,
    steady: bool,
    found: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(trainer, "free_memory", lambda: free)
    monkeypatch.setattr(trainer, "steady_memory", lambda: calls.append(True))
    chosen = stage(method=Lora(r=2), steps=1, batch=4)
    train(job(found["electra"], tmp_path, NER, drug_rows(4), chosen, forecast=True))
    assert bool(calls) == steady


def test_what_was_mended_is_known_to_the_next_process(tmp_path: Path) -> None:
    assert read_recovery(tmp_path) == Recovery()
    changed = Recovery().smaller(8)
    changed.keep(tmp_path)
    assert read_recovery(tmp_path) == changed


def test_checkpointing_computes_the_same(found: dict[str, Any], tmp_path: Path) -> None:
    rows = drug_rows(12)
    one, _ = train(
        job(found["electra"], tmp_path / "a", NER, rows, stage(method=Full(), steps=4, batch=4))
    )
    two, _ = train(
        job(
            found["electra"],
            tmp_path / "b",
            NER,
            rows,
            stage(method=Full(), steps=4, batch=4, checkpointing=True),
        )
    )
    assert losses(two) == pytest.approx(losses(one), abs=1e-6)


def test_fp16_without_a_gpu_is_refused(found: dict[str, Any], tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, which has fp16")
    with pytest.raises(UserError, match="fp16 needs a GPU"):
        train(job(found["electra"], tmp_path, NER, drug_rows(4), stage(steps=1, precision="fp16")))


@pytest.mark.parametrize(("rows", "batch", "world"), [(11, 2, 2), (8, 2, 2), (7, 3, 4)])
def test_processes_share_out_the_batches_of_one(rows: int, batch: int, world: int) -> None:
    lengths = list(range(3, 3 + rows))
    alone = LengthBatches(lengths, batch, 1, lambda: 0).order(0)
    each = [list(LengthBatches(lengths, batch, 1, lambda: 0, rank, world)) for rank in range(world)]
    assert len({len(one) for one in each}) == 1, "they wait for each other"
    dealt = [one[step] for step in range(len(each[0])) for one in each]
    assert [found for found in dealt if found != [BLANK]] == alone
