"""What training saves is what everything loads; whatever does not belong together is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from residency.core.errors import UserError
from residency.models import artefact as module
from residency.models.adapters import ExternalMethod, Freeze, Full, Lora, Prefix, method_of
from residency.models.artefact import fresh, load, read, save
from residency.models.base import BaseModelSettings, resolve
from residency.tasks.card import Card, Label

CARD = Card(name="s", family="spans", labels=(Label(name="thuốc"), Label(name="病")))


def saved(folder: Path, base: Any, method: Any) -> torch.Tensor:
    torch.manual_seed(3)
    model = method_of(method).attach(fresh(base, CARD)).eval()
    save(folder, model, base, CARD, method, "synthetic")
    return logits(model)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model(input_ids=torch.tensor([[2, 30, 40, 3]])).logits
    return found


@pytest.fixture
def base(bases: dict[str, Path], tmp_path: Path) -> Any:
    """A base of the test's own, which it may break."""
    return resolve(BaseModelSettings(id=str(shutil.copytree(bases["bert"], tmp_path / "base"))))


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as raised:
        load(folder)
    message = str(raised.value)
    assert "\n" not in message and message.endswith(".")
    return message


@pytest.mark.parametrize("method", [Lora(r=2), Full()], ids=["lora", "full"])
def test_an_artefact_comes_back_whole(method: Any, base: Any, tmp_path: Path) -> None:
    expected = saved(tmp_path / "out", base, method)
    artefact, model, tokeniser = load(tmp_path / "out")
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)
    assert (artefact.task(), artefact.tuning(), artefact.profile) == (CARD, method, "synthetic")
    assert not model.training
    assert tokeniser(["ho khan"]) == module.tokeniser(base)(["ho khan"])


def test_a_fully_tuned_model_needs_no_base(base: Any, tmp_path: Path) -> None:
    saved(tmp_path / "out", base, Full())
    shutil.rmtree(base.path)
    load(tmp_path / "out")


def test_a_method_of_another_package_comes_back(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere_a.py").write_text(
        "from residency.models.adapters import Lora\nclass Mine(Lora):\n    extra: int = 1\n",
        "utf-8",
    )
    monkeypatch.syspath_prepend(tmp_path)
    expected = saved(
        tmp_path / "out",
        base,
        ExternalMethod(target="elsewhere_a:Mine", options={"r": 2, "extra": 5}),
    )
    artefact, model, _ = load(tmp_path / "out")
    assert artefact.tuning().model_dump()["extra"] == 5
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=0)


def test_a_folder_without_artefact_is_refused(tmp_path: Path) -> None:
    assert "holds no artefact (artefact.json is missing)" in refused(tmp_path)


@pytest.mark.parametrize(
    "file", ["adapter_model.safetensors", "tokenizer.json", "adapter_config.json"]
)
@pytest.mark.parametrize(
    "harm", [lambda p: p.write_bytes(p.read_bytes() + b" "), Path.unlink], ids=["changed", "gone"]
)
def test_a_changed_or_missing_file_is_refused(
    file: str, harm: Callable[[Path], object], base: Any, tmp_path: Path
) -> None:
    saved(tmp_path / "out", base, Lora(r=2))
    harm(tmp_path / "out" / file)
    assert f"{tmp_path / 'out' / file}: is missing or was changed after training" in refused(
        tmp_path / "out"
    )


def test_a_missing_base_is_refused(base: Any, tmp_path: Path) -> None:
    saved(tmp_path / "out", base, Lora(r=2))
    shutil.rmtree(base.path)
    assert f"base: {base.id} does not exist" in refused(tmp_path / "out")


def test_a_base_with_other_weights_is_refused(base: Any, tmp_path: Path) -> None:
    saved(tmp_path / "out", base, Lora(r=2))
    torch.manual_seed(4)
    fresh(base, CARD).save_pretrained(base.path)
    assert f"its base {base.id} is another one than it was trained on" in refused(tmp_path / "out")


def test_another_schema_is_refused(base: Any, tmp_path: Path) -> None:
    saved(tmp_path / "out", base, Lora(r=2))
    path = tmp_path / "out" / "artefact.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"schema": 99}), "utf-8")
    assert "artefact schema 99 is not read by this version, which reads 1" in refused(
        tmp_path / "out"
    )


def test_every_saved_file_is_listed_by_hash(base: Any, tmp_path: Path) -> None:
    saved(tmp_path / "out", base, Lora(r=2))
    names = {path.name for path in (tmp_path / "out").iterdir()} - {"artefact.json"}
    assert set(read(tmp_path / "out").files) == names
    assert {"adapter_model.safetensors", "tokenizer.json"} <= names


def test_a_moved_base_is_found_again_by_its_id(
    base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundled" / "tiny"
    shutil.copytree(base.path, bundle)
    monkeypatch.setattr("residency.models.base.BUNDLED", tmp_path / "bundled")
    there = msgspec.structs.replace(
        base, id="bundled:tiny", path=str(tmp_path / "another machine" / "tiny")
    )
    torch.manual_seed(0)
    model = Lora(r=2).attach(fresh(base, CARD))
    monkeypatch.setattr(
        module, "load_tokenizer", lambda path, real=module.load_tokenizer: real(bundle)
    )
    save(tmp_path / "out", model, there, CARD, Lora(r=2), "public")
    assert load(tmp_path / "out")[0].base.id == "bundled:tiny"


# Stages


def next_stage(start: Path, folder: Path, base: Any, method: Any, seed: int = 3) -> torch.Tensor:
    """A stage that goes on from an artefact, trained for a step; the logits that it ends with."""
    torch.manual_seed(seed)
    model = (
        method_of(method).attach(module.begin(base, CARD, "head", method_of(method), start)).train()
    )
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(input_ids=torch.tensor([[2, 30, 40, 3]])).logits.float().pow(2).sum().backward()
    optimiser.step()
    folder.mkdir()
    save(folder, model.eval(), base, CARD, method, "synthetic", start=start)
    return logits(model)


CHAINS = {
    "prefix, freeze": (Prefix(length=3), Freeze(last=1)),
    "prefix, lora": (Prefix(length=3), Lora(r=2)),
    "lora, prefix": (Lora(r=2), Prefix(length=3)),
    "lora, lora": (Lora(r=2), Lora(r=3)),
    "full, prefix": (Full(), Prefix(length=3)),
    "prefix, full": (Prefix(length=3), Full()),
    "freeze, lora": (Freeze(last=1), Lora(r=2)),
    "prefix, freeze, prefix": (Prefix(length=3), Freeze(last=1), Prefix(length=3)),
}


@pytest.mark.parametrize("methods", CHAINS.values(), ids=CHAINS.keys())
def test_the_last_artefact_holds_what_every_stage_trained(
    methods: Any, base: Any, tmp_path: Path
) -> None:
    expected = [saved(tmp_path / "0", base, methods[0])]
    for number, method in enumerate(methods[1:], start=1):
        expected.append(
            next_stage(tmp_path / str(number - 1), tmp_path / str(number), base, method)
        )
    for number in range(len(methods) - 1):
        shutil.rmtree(tmp_path / str(number))
    said, model, _ = load(tmp_path / str(len(methods) - 1), merge=False)
    assert torch.equal(logits(model), expected[-1])
    assert not torch.allclose(expected[-1], expected[0], atol=1e-4)
    assert said.kinds == ", ".join(method.kind for method in methods)


@pytest.mark.parametrize("quantise", ["nf4", "int8"])
def test_a_prefix_and_trained_layers_stand_together_on_a_quantised_base(
    quantise: Any, base: Any, tmp_path: Path
) -> None:
    small = msgspec.structs.replace(base, quantise=quantise)
    saved(tmp_path / "1", small, Prefix(length=3))
    expected = next_stage(tmp_path / "1", tmp_path / "2", small, Freeze(last=1))
    assert torch.equal(logits(load(tmp_path / "2")[1]), expected)


def test_a_stage_behind_lora_on_a_quantised_base_is_refused(base: Any, tmp_path: Path) -> None:
    small = msgspec.structs.replace(base, quantise="nf4")
    saved(tmp_path / "1", small, Lora(r=2))
    with pytest.raises(
        UserError, match="does not merge into quantised weights without loss; put it last"
    ):
        module.begin(small, CARD, "head", Freeze(), tmp_path / "1")


def test_a_stage_goes_on_only_from_the_same_base_and_outputs(
    base: Any, bases: dict[str, Path], tmp_path: Path
) -> None:
    saved(tmp_path / "1", base, Lora(r=2))
    other = resolve(BaseModelSettings(id=str(bases["roberta"])))
    with pytest.raises(UserError, match="was trained on another base"):
        module.begin(other, CARD, "head", Lora(), tmp_path / "1")
    three = CARD.model_copy(update={"labels": (*CARD.labels, Label(name="more"))})
    with pytest.raises(UserError, match="whose outputs are not those of card s"):
        module.begin(base, three, "head", Lora(), tmp_path / "1")
