"""Training: the loss is what it says, a rule is learned, and a killed run ends where it would have
ended."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch

from residency.core.errors import UserError
from residency.core.types import Answer, Example, Labels, Span, Spans, StageResult
from residency.models import artefact
from residency.models.adapters import Freeze, Full, Lora, Prefix
from residency.models.artefact import fresh, tokeniser
from residency.models.base import silent
from residency.models.encoder import EncoderPredictor
from residency.tasks.card import Card, Label
from residency.tasks.scoring import main_metric
from residency.train import judge as module
from residency.train.batches import LengthBatches
from residency.train.defaults import resolve
from residency.train.items import build
from residency.train.job import TrainingJob
from residency.train.judge import Judge
from residency.train.stage import Stage, Stop
from residency.train.stage_trainer import StageTrainer, optimiser
from residency.train.trainer import last_checkpoint, seed_everything, train

pytestmark = pytest.mark.training

NER = Card(name="ner", family="spans", labels=(Label(name="drug"),))
ONE = Card(name="one", family="labels", labels=(Label(name="lung"), Label(name="skin")))
SEVERAL = Card(
    name="several", family="labels", labels=(Label(name="lung"), Label(name="skin")), multiple=True
)
DRUGS = ("metformin", "salbutamol")
OTHER = (
    "the patient",
    "was admitted",
    "with pneumonia",
    "no fever",
    "twice daily",
    "blood pressure",
)


def example(number: int, text: str, gold: Answer) -> Example:
    return Example(id=str(number), task="t", input=text, gold=gold, profile="synthetic")


def drug_rows(count: int) -> list[Example]:
    """A drug's name is a drug, wherever it stands."""
    rows = []
    for number, (before, drug, after) in zip(
        range(count), itertools.cycle(itertools.product(OTHER, DRUGS, OTHER))
    ):
        text = f"{before} {drug} {after}"
        start = len(before) + 1
        span = Span(start=start, end=start + len(drug), label="drug", quote=drug)
        rows.append(example(number, text, Spans(spans=(span,))))
    return rows


def class_rows(count: int, several: bool) -> list[Example]:
    """A word says the class."""
    rows = []
    for number in range(count):
        lung, skin = number % 2 == 0, number % 3 == 0 if several else number % 2 == 1
        words = [
            OTHER[number % 6],
            *(["pneumonia asthma"] if lung else []),
            *(["患者 咳嗽"] if skin else []),
        ]
        labels = tuple(name for name, has in (("lung", lung), ("skin", skin)) if has)
        rows.append(example(number, " ".join(words), Labels(labels=labels)))
    return rows


def job(
    base: Any, folder: Path, card: Card, rows: Sequence[Example], stage: Stage, **more: Any
) -> TrainingJob:
    given = {
        "dev": (),
        "seed": 1,
        "profile": "synthetic",
        "work": folder / "work",
        "out": folder / "out",
    } | more
    return TrainingJob(stage=stage, name=stage.title(1), base=base, card=card, train=rows, **given)


def stage(**settings: Any) -> Stage:
    """An encoder learns alone unless ``lexical`` says otherwise."""
    given = {"precision": "fp32", "stop": None, "method": Lora(), "lexical": "off"}
    return Stage(**(given | settings))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = (folder / "out").glob("*.safetensors")
    found: dict[str, torch.Tensor] = safetensors.torch.load_file(path)
    return found


def losses(result: StageResult) -> list[float]:
    return [entry["loss"] for entry in result.history if "loss" in entry]


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


# What is learned


def test_a_model_that_learned_nothing_is_not_kept(found: dict[str, Any], tmp_path: Path) -> None:
    chosen = stage(method=Full(), learning_rate=1.0, head_learning_rate=1.0, steps=60, batch=4)
    with pytest.raises(UserError, match="none of 20 of its own training rows a label") as error:
        train(job(found["electra"], tmp_path, NER, drug_rows(20), chosen))
    assert "learning_rate below 0.5" in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "out" / "artefact.json").exists()


@pytest.mark.parametrize(
    ("card", "rows", "settings"),
    [
        (NER, drug_rows(40), {"method": Full(), "learning_rate": 5e-3, "epochs": 12}),
        (
            NER,
            drug_rows(40),
            {"method": Lora(r=8, dropout=0.0), "learning_rate": 2e-2, "epochs": 15},
        ),
        (ONE, class_rows(40, False), {"method": Full(), "learning_rate": 5e-3, "epochs": 12}),
        (SEVERAL, class_rows(40, True), {"method": Full(), "learning_rate": 5e-3, "epochs": 50}),
    ],
    ids=["spans, full", "spans, lora", "one label", "several labels"],
)
def test_a_simple_rule_is_learned_and_the_artefact_answers_by_it(
    card: Card, rows: list[Example], settings: dict[str, Any], found: dict[str, Any], tmp_path: Path
) -> None:
    chosen = stage(batch=8, head_learning_rate=1e-2, **settings)
    result, _ = train(job(found["electra"], tmp_path, card, rows, chosen))
    history = losses(result)
    assert history[-1] < history[0] / 2
    tuned = EncoderPredictor.from_artefact(tmp_path / "out")
    assert main_metric(rows, list(tuned.predict(rows)), card) > 0.9
    assert result.stopped == "all epochs done" and result.mask.rows == 40
    assert 0 < result.trainable <= result.parameters * 2


def test_training_says_nothing_on_the_terminal(
    found: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with silent():
        train(job(found["electra"], tmp_path, NER, drug_rows(4), stage(steps=2, batch=2)))
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


def test_an_empty_training_part_is_refused(found: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is nothing to train on"):
        train(job(found["electra"], tmp_path, NER, [], stage()))


# The loss


@pytest.mark.parametrize("card", [NER, ONE, SEVERAL], ids=["spans", "one label", "several labels"])
def test_the_gradient_is_that_of_the_mean_over_the_effective_batch(
    card: Card, found: dict[str, Any], tmp_path: Path
) -> None:
    """4 rows of unequal length as 4 x 1, 2 x 2 and 1 x 4 against the mean computed by hand."""
    rows = drug_rows(3) if card is NER else class_rows(3, card.multiple)
    rows.append(
        rows[0].__class__(
            id="long",
            task="t",
            input="no fever " * 9,
            gold=Spans() if card is NER else rows[0].gold,
        )
    )
    base = found["electra"]
    gradients = [gradient(base, card, rows, tmp_path, micro) for micro in (1, 2, 4)]
    expected = by_hand(base, card, rows)
    for found_one in gradients:
        for name, value in expected.items():
            torch.testing.assert_close(found_one[name], value, atol=1e-6, rtol=1e-4)


def gradient(
    base: Any, card: Card, rows: list[Example], folder: Path, micro: int
) -> dict[str, torch.Tensor]:
    """What the optimiser is given at the first step."""
    chosen = stage(method=Full(), micro_batch=micro, accumulation=4 // micro, steps=1, clip=0)
    given = job(base, folder / str(micro), card, rows, chosen)
    model = without_dropout(base, card)
    words = tokeniser(base)
    items = build(rows, words, card)
    plan = resolve(chosen, 1, 4, "cpu", False)
    judge = Judge(given, EncoderPredictor(model, words, card, None), 1)  # type: ignore[arg-type]
    trainer = StageTrainer(given, plan, items, model, judge)
    seen: dict[str, torch.Tensor] = {}

    class Watch(module.TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            seen.update(
                {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            )

    trainer.add_callback(Watch())
    trainer.train()
    return seen


def by_hand(base: Any, card: Card, rows: list[Example]) -> dict[str, torch.Tensor]:
    """Row by row, without padding: the sum of all losses over the number of trained targets."""
    model = without_dropout(base, card).train()
    total, count = torch.zeros(()), 0
    for item in build(rows, tokeniser(base), card).items:
        logits = model(input_ids=torch.tensor([item.ids])).logits[0]
        if card is NER:
            kept = [i for i, target in enumerate(item.targets) if target != -100]
            chances = logits.log_softmax(-1)
            total = total - sum(chances[i, int(item.targets[i])] for i in kept)
            count += len(kept)
        elif card is ONE:
            total, count = total - logits.log_softmax(-1)[int(item.targets[0])], count + 1
        else:
            target = torch.tensor(item.targets)
            chance = logits.sigmoid()
            total = total - (target * chance.log() + (1 - target) * (1 - chance).log()).sum()
            count += len(item.targets)
    (total / count).backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def without_dropout(base: Any, card: Card) -> Any:
    seed_everything(3)
    model = fresh(base, card)
    for part in model.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
        if hasattr(part, "dropout_prob"):
            part.dropout_prob = 0.0
    return model


# Seeds


def test_a_seed_gives_the_same_adapter_and_another_seed_another(
    found: dict[str, Any], tmp_path: Path
) -> None:
    chosen = stage(method=Lora(r=2), steps=3, batch=4)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.manual_seed(hash(name) % 100)  # what came before must not matter
        train(job(found["electra"], tmp_path / name, NER, drug_rows(8), chosen, seed=seed))
    assert_equal(weights(tmp_path / "a"), weights(tmp_path / "b"))
    other = weights(tmp_path / "c")
    assert any(
        not torch.equal(value, other[name]) for name, value in weights(tmp_path / "a").items()
    )


@pytest.mark.parametrize("method", [Prefix(length=3), Freeze(last=1)], ids=["prefix", "freeze"])
def test_every_method_gives_equal_artefacts_for_equal_seeds(
    method: Any, found: dict[str, Any], tmp_path: Path
) -> None:
    chosen = stage(method=method, steps=3, batch=4)
    for name in ("a", "b"):
        torch.manual_seed(hash(name) % 100)
        (tmp_path / name / "out").mkdir(parents=True)
        train(job(found["electra"], tmp_path / name, NER, drug_rows(8), chosen))
    read = [artefact.read(tmp_path / name / "out").files for name in ("a", "b")]
    made = {name for name in read[0] if name not in ("stage.json", "metrics.jsonl")}
    assert "changed.safetensors" in made
    assert {name: read[0][name] for name in made} == {name: read[1][name] for name in made}


@pytest.mark.parametrize("quantise", ["nf4", "int8"])
@pytest.mark.parametrize(
    "method", [Lora(r=2), Prefix(length=4), Freeze(last=1)], ids=["lora", "prefix", "freeze"]
)
def test_a_quantised_base_is_tuned_judged_and_comes_back(
    method: Any, quantise: Any, found: dict[str, Any], tmp_path: Path
) -> None:
    base = msgspec.structs.replace(found["roberta"], quantise=quantise)
    rows = drug_rows(8)
    chosen = stage(
        method=method,
        steps=4,
        batch=4,
        optimiser="paged_adamw_8bit",
        learning_rate=1e-2,
        stop=Stop(),
    )
    result, _ = train(job(base, tmp_path, NER, rows, chosen, dev=rows[:2]))
    assert losses(result)[-1] < losses(result)[0]
    assert result.settings["optimiser"].startswith("paged_adamw_8bit")
    again = EncoderPredictor.from_artefact(tmp_path / "out")
    kept = {type(module).__name__ for module in again.model.modules()}
    assert bool({"Linear4bit", "Linear8bitLt"} & kept) == (method.kind != "freeze"), (
        "the base's only layer is trained"
    )
    assert len(list(again.predict(rows))) == 8


# Resuming


class Killed(Exception):
    """The process ends here."""


METHODS = {
    "lora": Lora(r=2, dropout=0.1),
    "prefix": Prefix(length=4),
    "freeze": Freeze(last=1, embeddings=True),
    "full": Full(),
}


@pytest.mark.parametrize("cut", [2, 3, 4, 5, 8])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_killed_run_ends_where_it_would_have_ended(
    method: Any, cut: int, found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """11 rows in batches of 2 x 2: 3 steps an epoch, 3 epochs; cut in the middle and at the end of
    epochs."""
    rows = drug_rows(11)
    chosen = stage(
        method=method,
        epochs=3,
        micro_batch=2,
        accumulation=2,
        learning_rate=1e-2,
        stop=Stop(patience=9),
    )
    base = found["electra"]
    whole, _ = train(job(base, tmp_path / "whole", NER, rows, chosen, dev=rows[:4]))

    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0)

    def kill(step: int, *_: Any) -> None:
        if step == cut:
            raise Killed

    with pytest.raises(Killed):
        train(job(base, tmp_path / "cut", NER, rows, chosen, dev=rows[:4], progress=kill))
    assert (
        last_checkpoint(tmp_path / "cut" / "work")
        == tmp_path / "cut" / "work" / f"checkpoint-{cut - 1}"
    )
    resumed, _ = train(job(base, tmp_path / "cut", NER, rows, chosen, dev=rows[:4]))
    assert resumed.history == whole.history
    assert len(losses(whole)) == 9 and sum("span_f1" in entry for entry in whole.history) == 3
    assert (resumed.best, resumed.best_epoch) == (whole.best, whole.best_epoch)
    assert_equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_losses_logged_over_several_steps_are_the_same_after_resuming(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """130 steps are logged every second one; a checkpoint between two would lose half of what is
    averaged."""
    chosen = stage(method=Lora(r=2, dropout=0.0), steps=130, batch=1)
    base, rows = found["electra"], drug_rows(13)
    whole, _ = train(job(base, tmp_path / "whole", NER, rows, chosen))
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 0)

    def kill(step: int, *_: Any) -> None:
        if step == 8:
            raise Killed

    with pytest.raises(Killed):
        train(job(base, tmp_path / "cut", NER, rows, chosen, progress=kill))
    monkeypatch.setattr(module, "CHECKPOINT_SECONDS", 1e9)
    resumed, _ = train(job(base, tmp_path / "cut", NER, rows, chosen))
    assert len(losses(whole)) == 65 and resumed.history == whole.history
    assert_equal(weights(tmp_path / "cut"), weights(tmp_path / "whole"))


def test_a_half_written_checkpoint_is_ignored_and_removed(tmp_path: Path) -> None:
    for name, marked in (("checkpoint-2", True), ("checkpoint-10", True), ("checkpoint-11", False)):
        (tmp_path / name).mkdir()
        if marked:
            (tmp_path / name / module.MARKER).write_text("{}", "utf-8")
    earlier = tmp_path / "checkpoint-10" / "trained.safetensors"
    earlier.write_bytes(b"of an earlier version")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert earlier.with_name("model.safetensors").read_bytes() == b"of an earlier version"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2"]
    assert last_checkpoint(tmp_path / "nothing") is None


# Early stopping


def test_training_stops_after_patience_and_the_best_weights_are_kept(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([0.1, 0.6, 0.5, 0.6, 0.9])
    kept: list[dict[str, torch.Tensor]] = []

    def judged(self_examples: Any, predictions: Any, card: Card) -> float:
        kept.append(
            {
                name: p.detach().clone()
                for name, p in watched[0].model.named_parameters()
                if p.requires_grad
            }
        )
        return next(values)

    watched: list[Judge] = []
    real = Judge.__init__

    def watch(self: Judge, *arguments: Any) -> None:
        watched.append(self)
        real(self, *arguments)
        watched[0] = self

    monkeypatch.setattr(Judge, "__init__", watch)
    monkeypatch.setattr(module, "main_metric", judged)
    rows = drug_rows(8)
    chosen = stage(method=Full(), epochs=9, batch=4, learning_rate=1e-2, stop=Stop(patience=2))
    result, _ = train(job(found["electra"], tmp_path, NER, rows, chosen, dev=rows[:2]))
    assert len(kept) == 4, "an equal value is no gain"
    assert (result.best, result.best_epoch) == (0.6, 2)
    assert result.stopped == "span_f1 on the stop part did not rise for 2 epochs"
    saved = weights(tmp_path)
    assert all(torch.equal(saved[name], tensor) for name, tensor in kept[1].items())
    assert any(not torch.equal(saved[name], tensor) for name, tensor in kept[3].items())


def test_the_stop_part_is_judged_after_every_so_many_steps(
    found: dict[str, Any], tmp_path: Path
) -> None:
    rows = drug_rows(8)
    chosen = stage(method=Lora(r=2), steps=7, batch=4, stop=Stop(every=3, patience=9))
    result, _ = train(job(found["electra"], tmp_path, NER, rows, chosen, dev=rows[:2]))
    assert [entry["step"] for entry in result.history if "span_f1" in entry] == [3, 6]


def test_without_a_stop_rule_the_last_model_is_kept(found: dict[str, Any], tmp_path: Path) -> None:
    rows = drug_rows(8)
    result, _ = train(job(found["electra"], tmp_path, NER, rows, stage(steps=4, batch=4), dev=rows))
    assert not any("span_f1" in entry for entry in result.history)
    assert result.stopped == "all epochs done" and len(losses(result)) == 4


# Rates


def test_the_head_has_its_own_rate_and_biases_no_decay(
    found: dict[str, Any], tmp_path: Path
) -> None:
    chosen = stage(
        method=Full(),
        steps=1,
        batch=2,
        learning_rate=1e-4,
        head_learning_rate=1e-2,
        weight_decay=0.1,
    )
    given = job(found["electra"], tmp_path, NER, drug_rows(2), chosen)
    model = fresh(given.base, NER)
    groups = optimiser(model, chosen, resolve(chosen, 1, 2, "cpu", False)).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    for group in groups:
        for parameter in group["params"]:
            assert group["lr"] == (1e-2 if names[id(parameter)].startswith("classifier") else 1e-4)
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0)
    assert sum(len(group["params"]) for group in groups) == len(names)


def test_every_epoch_has_an_order_of_its_own(
    found: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    real = LengthBatches.order
    monkeypatch.setattr(
        LengthBatches, "order", lambda self, epoch: (seen.append(epoch), real(self, epoch))[1]
    )
    train(
        job(
            found["electra"],
            tmp_path,
            NER,
            drug_rows(7),
            stage(epochs=3, micro_batch=2, accumulation=2),
        )
    )
    assert seen[:3] == [0, 1, 2]
