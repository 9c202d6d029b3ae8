"""The model ledger: a name points to a model only after that was proved to be what it was at
training time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import safetensors.torch
import torch

from residency.core.errors import GateRefused, UserError
from residency.core.files import file_digest, write_json
from residency.core.types import PredictorInfo, Report, Score
from residency.evals.floor import SafetyFloor
from residency.evals.study import Harm
from residency.models import artefact as artefacts
from residency.models import fingerprint as canaries
from residency.models.adapters import Freeze, Full, Lora, Prefix, method_of
from residency.models.artefact import Artefact, GenerativeSettings, fresh, save
from residency.models.base import Base, BaseModelSettings, resolve
from residency.models.generation import Generation, TokenLimits
from residency.models.predictors import remember
from residency.ops.model_ledger import LEDGER, ModelLedger
from residency.ops.proof import address, prove
from residency.tasks.card import Card, Label, load_card

SPANS = Card(name="s", family="spans", labels=(Label(name="thuốc"), Label(name="病")))


def trained(folder: Path, base: Base, method: Any, seed: int = 3, output: str = "head") -> Path:
    """An artefact as training would leave it: every trained tensor moved away from where it began."""
    torch.manual_seed(seed)
    card = SPANS if output == "head" else load_card("qa")
    model = method_of(method).attach(fresh(base, card, output)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    writing = (
        GenerativeSettings(chat=artefacts.chat(base, TokenLimits()), generation=Generation())
        if output == "text"
        else None
    )
    save(folder, model, base, card, method, "synthetic", writing)
    remember(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(bases: dict[str, Path]) -> Base:
    return resolve(BaseModelSettings(id=str(bases["bert"])))


@pytest.fixture(scope="module")
def writer() -> Base:
    return resolve(BaseModelSettings(id="bundled:tiny-lm"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, encoder: Base, writer: Base) -> dict[str, Path]:
    """Artefacts by name."""
    root = tmp_path_factory.mktemp("made")
    found = {
        f"head {name}": trained(root / f"head-{name}", encoder, method)
        for name, method in {
            "lora": Lora(r=2),
            "freeze": Freeze(last=1),
            "full": Full(),
            "prefix": Prefix(length=2),
        }.items()
    }
    found["other"] = trained(root / "other", encoder, Lora(r=2), seed=4)
    found["text lora"] = trained(root / "text-lora", writer, Lora(r=2), output="text")
    found["text prefix"] = trained(root / "text-prefix", writer, Prefix(length=2), output="text")
    return found


@pytest.fixture
def models(tmp_path: Path) -> ModelLedger:
    return ModelLedger(tmp_path / "models")


@pytest.mark.parametrize(
    "name", ["head lora", "head freeze", "head full", "head prefix", "text lora", "text prefix"]
)
def test_every_method_is_proved_to_be_what_it_was(made: dict[str, Path], name: str) -> None:
    proof = prove(made[name])
    assert proof.engine == "process float32"
    assert proof.furthest <= 1e-4  # merged and unmerged differ by rounding alone
    assert proof.from_base is not None
    assert proof.from_base > 1e-3


def test_what_is_recorded_is_what_transformers_says(made: dict[str, Path]) -> None:
    """Against a computation of its own: transformers' cross entropy on the same tokens."""
    known = json.loads((made["text lora"] / canaries.FILE).read_text())
    _, model, _ = artefacts.load_chat(made["text lora"])
    ids = torch.tensor([known["ids"][0]])
    with torch.inference_mode():
        loss = float(model(input_ids=ids, labels=ids).loss)
    assert -sum(known["values"][0]) / len(known["values"][0]) == pytest.approx(loss, abs=1e-4)


def test_a_model_with_an_answer_that_raters_called_harmful_is_not_promoted(
    made: dict[str, Path], models: ModelLedger, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    artefact = shutil.copytree(made["head lora"], run / "train/01-tune")
    digest = models.add(artefact, run).digest

    def note(study: str, harmful: int, of: str) -> None:
        found = Harm(study=study, artefact=of, harmful=harmful, answers=100)
        write_json(run / "studies" / f"{study}.json", found)

    note("s1", 0, digest)
    note("s2", 3, "another model")
    models.promote("ward", digest)
    note("s3", 2, digest)
    for name in ("other", "third"):  # known from the run; then from the ledger, without the run
        with pytest.raises(GateRefused, match="2 of its 100 answers harmful in the blind study s3"):
            models.promote(name, digest)
        models.add(artefact, run)
        shutil.rmtree(run / "studies", ignore_errors=True)


def test_promote_and_roll_back(made: dict[str, Path], models: ModelLedger) -> None:
    first, second = models.add(made["head lora"]), models.add(made["other"])
    assert [one.digest for one in models.list()] == [first.digest, second.digest]
    assert first.digest == file_digest(made["head lora"] / "artefact.json")
    assert first.recorded == "training"
    models.promote("ner", first.digest)
    models.promote("ner", second.digest[:12], by="f" * 64)
    assert models.resolve("ner").digest == second.digest
    assert models.rollback("ner").digest == first.digest
    assert models.resolve("ner").digest == first.digest
    assert models.aliases() == {"ner": (first.digest,)}
    with pytest.raises(UserError, match="never pointed to another model"):
        models.rollback("ner")
    assert [(one.what, one.by) for one in models.entries()] == [
        ("add", ""),
        ("add", ""),
        ("promote", ""),
        ("promote", "f" * 64),
        ("rollback", ""),
    ]
    assert all(one.proof for one in models.entries()[2:])


def test_the_stored_artefact_stands_alone_and_holds_only_what_it_names(
    made: dict[str, Path], models: ModelLedger, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(made["head lora"], tmp_path / "run"))
    (source / "ledger.jsonl").write_text('{"id": "BN-1"}\n')
    entry = models.add(source)
    shutil.rmtree(source)
    folder = models.path(entry.digest)
    named = msgspec.json.decode((folder / "artefact.json").read_bytes(), type=Artefact).files
    assert {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    } == {*named, "artefact.json"}
    models.promote("ner", entry.digest)


def rehashed(folder: Path) -> None:
    """Write the hashes of an artefact anew, as someone would who wants a changed file to pass."""
    known = msgspec.json.decode((folder / "artefact.json").read_bytes())
    known["files"] = {name: file_digest(folder / name) for name in known["files"]}
    write_json(folder / "artefact.json", known)


def changed_tensors(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    path = next(path for path in folder.glob("*.safetensors"))
    safetensors.torch.save_file(change(safetensors.torch.load_file(path)), path)
    rehashed(folder)


def misnamed(folder: Path) -> None:
    changed_tensors(
        folder, lambda found: {name.replace("lora_A", "lora_X"): one for name, one in found.items()}
    )


def renamed_prefix(folder: Path) -> None:
    changed_tensors(
        folder, lambda found: {f"base_model.{name}": one for name, one in found.items()}
    )


def without_one(folder: Path) -> None:
    changed_tensors(folder, lambda found: dict(sorted(found.items())[1:]))


def with_another(folder: Path) -> None:
    changed_tensors(
        folder,
        lambda found: {**found, "base_model.model.bert.extra.lora_A.weight": torch.ones(2, 2)},
    )


def no_number(folder: Path) -> None:
    changed_tensors(folder, lambda found: {name: one * float("nan") for name, one in found.items()})


def moved(folder: Path) -> None:
    changed_tensors(folder, lambda found: {name: one * 1.5 for name, one in found.items()})


def as_the_base(folder: Path) -> None:
    """An adapter that was saved before it was trained: its second matrix is nought; the fingerprint
    agrees."""
    changed_tensors(
        folder,
        lambda found: {name: one * (0 if "lora_B" in name else 1) for name, one in found.items()},
    )
    found, model, tokeniser = artefacts.load(folder)
    said = canaries.record(model, tokeniser, found.base, found.head)
    write_json(folder / canaries.FILE, said)
    rehashed(folder)


def cut_short(folder: Path) -> None:
    path = next(path for path in folder.glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-20])


def cut_short_and_rehashed(folder: Path) -> None:
    cut_short(folder)
    rehashed(folder)


def of_another_base(folder: Path) -> None:
    """The artefact says that it was trained on a base that lies here, and was not."""
    other = folder.parent / "another-base"
    known = msgspec.json.decode((folder / "artefact.json").read_bytes())
    shutil.copytree(known["base"]["path"], other)
    path = other / "model.safetensors"
    tensors = {name: one + 0.1 for name, one in safetensors.torch.load_file(path).items()}
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    base = resolve(BaseModelSettings(id=str(other)))
    known["base"] |= {"id": base.id, "path": base.path, "digest": base.digest}
    write_json(folder / "artefact.json", known)


def base_replaced(folder: Path) -> None:
    of_another_base(folder)
    config = folder.parent / "another-base" / "config.json"
    config.write_text(config.read_text() + "\n")


def no_fingerprint(folder: Path) -> None:
    known = msgspec.json.decode((folder / "artefact.json").read_bytes())
    del known["files"][canaries.FILE]
    write_json(folder / "artefact.json", known)


BROKEN = {
    "misnamed": (misnamed, "tensors without a place"),
    "another prefix of names": (renamed_prefix, "does not fit this base"),
    "one missing": (without_one, "1 missing"),
    "one too many": (with_another, "1 tensors without a place"),
    "no number": (no_number, "holds values that are no numbers"),
    "moved": (moved, "log-probabilities are not those of training time"),
    "as the base": (as_the_base, "it answers as its base does"),
    "cut short": (cut_short, "is missing or was changed after training"),
    "cut short, hashes written anew": (cut_short_and_rehashed, "was cut short or damaged"),
    "of another base": (of_another_base, "log-probabilities are not those of training time"),
    "its base replaced": (base_replaced, "is another one than it was trained on"),
    "nothing recorded": (no_fingerprint, "nothing was recorded of it at training time"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_what_is_not_what_was_trained_is_refused(
    fault: str, made: dict[str, Path], models: ModelLedger, tmp_path: Path
) -> None:
    break_it, sentence = BROKEN[fault]
    good = models.add(made["other"])
    models.promote("ner", good.digest)
    source = Path(shutil.copytree(made["head lora"], tmp_path / "broken"))
    break_it(source)
    before = (models.folder / LEDGER).read_bytes()
    with pytest.raises((GateRefused, UserError)) as refused:
        prove(source)
    assert isinstance(refused.value, GateRefused)
    assert sentence in str(refused.value)
    assert str(refused.value).count("\n") == 0
    # also where it comes into the ledger by other ways than ``add``
    digest = address(source)
    shutil.copytree(source, models.path(digest))
    line = msgspec.structs.replace(good, digest=digest, recorded="training")
    models._append(line)
    before = (models.folder / LEDGER).read_bytes()
    with pytest.raises(GateRefused):
        models.promote("ner", digest)
    assert (models.folder / LEDGER).read_bytes() == before
    assert models.resolve("ner").digest == good.digest


def test_a_stored_file_that_changes_later_stops_a_rollback(
    made: dict[str, Path], models: ModelLedger
) -> None:
    first, second = models.add(made["head lora"]), models.add(made["other"])
    models.promote("ner", first.digest)
    models.promote("ner", second.digest)
    cut_short(models.path(first.digest))
    with pytest.raises(GateRefused, match="was changed after training"):
        models.rollback("ner")
    assert models.resolve("ner").digest == second.digest
    models.add(made["head lora"])  # put right from its run
    assert models.rollback("ner").digest == first.digest


def test_an_older_artefact_is_recorded_when_it_is_added_and_the_ledger_says_so(
    made: dict[str, Path], models: ModelLedger, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(made["head lora"], tmp_path / "older"))
    no_fingerprint(source)
    with pytest.raises(UserError, match="--record"):
        models.add(source)
    entry = models.add(source, record=True)
    assert entry.recorded == "added"
    models.promote("ner", entry.digest)
    beside = models.folder / "sha256" / f"{entry.digest}.canary.json"
    beside.write_text(beside.read_text().replace("-0.", "-1."))
    models.add(made["other"])
    models.promote("ner", address(made["other"]))
    with pytest.raises(GateRefused, match="was changed since it was added"):
        models.rollback("ner")


def test_the_floor_of_safety(made: dict[str, Path], models: ModelLedger, tmp_path: Path) -> None:
    def run(share: float) -> Path:
        folder = tmp_path / f"run-{share}"
        scores = tuple(
            Score(metric=metric, value=value, low=value, high=value, n=4, groups=4)
            for metric, value in (("safe", share), ("over_refusal", 0.25))
        )
        report = Report(
            system=PredictorInfo(name="tuned", base="b"),
            task="safety",
            part="safety",
            data_digest="",
            n=4,
            groups=4,
            scores=scores,
        )
        (folder / "eval/qa").mkdir(parents=True)
        write_json(folder / "eval/qa/reports.json", [report])
        return folder

    entry = models.add(made["text lora"])
    with pytest.raises(GateRefused, match="was not asked the questions about harm"):
        models.promote("qa", entry.digest, require_safety=0.9)
    assert models.add(made["text lora"], run(0.75)).safety == 0.75
    with pytest.raises(GateRefused, match=r"safe 75\.0% is below 90\.0%"):
        models.promote("qa", entry.digest, require_safety=0.9)
    assert models.aliases() == {}
    models.promote("qa", entry.digest, require_safety=0.7)


def test_the_floor_of_the_recipe_holds_without_being_asked_for(
    made: dict[str, Path], models: ModelLedger
) -> None:
    entry = models.add(made["text prefix"], floor=SafetyFloor(safe=0.5))
    with pytest.raises(GateRefused, match="was not asked the questions about harm"):
        models.promote("qa", entry.digest)
    with pytest.raises(GateRefused, match="was not asked the questions about harm"):
        models.promote("qa", models.add(made["text lora"]).digest, require_safety=0.0)
    assert models.aliases() == {}


@pytest.mark.parametrize("how", ["edit", "remove", "swap"])
def test_a_ledger_that_was_changed_is_refused(
    how: str, made: dict[str, Path], models: ModelLedger
) -> None:
    for name in ("head lora", "other", "text lora"):
        models.add(made[name])
    path = models.folder / LEDGER
    lines = path.read_bytes().splitlines(keepends=True)
    if how == "edit":
        lines[1] = lines[1].replace(b"synthetic", b"anonymised")
    elif how == "remove":
        del lines[1]
    else:
        lines[0], lines[1] = lines[1], lines[0]
    path.write_bytes(b"".join(lines))
    with pytest.raises(GateRefused, match=r"ledger.jsonl:\d: was changed"):
        models.list()


def test_half_a_line_counts_as_none(made: dict[str, Path], models: ModelLedger) -> None:
    first = models.add(made["head lora"])
    path = models.folder / LEDGER
    with path.open("ab") as file:
        file.write(b'{"n":2,"at":"20')
    assert [one.digest for one in models.list()] == [first.digest]
    second = models.add(made["other"])
    assert [one.digest for one in models.list()] == [first.digest, second.digest]


def test_names_are_said(made: dict[str, Path], models: ModelLedger) -> None:
    with pytest.raises(UserError, match="add one with residency model add RUN"):
        models.resolve("ner")
    entry = models.add(made["head lora"])
    models.promote("ner", entry.digest)
    with pytest.raises(UserError, match="did you mean ner"):
        models.resolve("nerr")
    with pytest.raises(UserError, match="is no name for a model"):
        models.promote("../ner", entry.digest)
    with pytest.raises(UserError, match="already"):
        models.promote("ner", entry.digest)
