"""From a recipe to a measured model: composes the library's functions into steps, and nothing else.

pipeline.run(recipe)  ->  data  ->  train/1-lora  ->  eval/TASK  ->  report
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.errors import UserError
from residency.core.files import (
    digest,
    file_digest,
    read_json,
    sha256,
    write_json,
    write_jsonl,
    write_text,
)
from residency.core.progress import Silent, Tracker
from residency.core.run_folder import (
    SCHEMA,
    Manifest,
    Run,
    Step,
    hardware,
    memoised_digest,
    now,
    packages,
)
from residency.core.types import (
    PARTS,
    SHOWABLE,
    DataSummary,
    Example,
    Facts,
    Note,
    PartName,
    Prediction,
    Profile,
    RawNote,
    Report,
    RunFacts,
    Spans,
    StageResult,
    Text,
    Tree,
)
from residency.core.zones import assert_outside
from residency.corpus import load, splitfile
from residency.corpus.ledger import Entry
from residency.corpus.load import Corpus
from residency.corpus.splitfile import SplitFile
from residency.corpus.summary import shown, strictest, summary, with_entries
from residency.evals.floor import shortfall
from residency.models import erased
from residency.models.base import Base, resolve, silent
from residency.recipe import Recipe, Task
from residency.tasks.card import Card, rule_of
from residency.tasks.examples import few_shot, fixed, question, with_shots
from residency.train import processes
from residency.workflows.assignment import Assignment, exams, marked, replay_task, replayed

if TYPE_CHECKING:
    from residency.models.causal import CausalPredictor
    from residency.models.encoder import EncoderPredictor
    from residency.train.trainer import TrainingJob

DEMO_CAVEAT = (
    "These records are invented: a generator wrote them, and the bundled model has seen text of "
    "the same generator when "
    "it was pre-trained. The scores show that the road works; they say nothing about real notes."
)
BUNDLED_CAVEAT = (
    "The bundled base is a very small model for learning the tool and for tests, never for care; "
    "a larger base is one line of the recipe."
)


class Work:
    """One recipe on its way through the steps; reads nothing before a step needs it."""

    def __init__(self, recipe: Recipe, runs: Path, tracker: Tracker) -> None:
        self.recipe, self.runs, self.tracker = recipe, runs, tracker
        self.run = Run(runs / f"{recipe.name}-{recipe.digest[:8]}")
        self.task: Task = recipe.tasks[0]

    @cached_property
    def base(self) -> Base:
        """The base, found on this machine."""
        return resolve(self.recipe.base, self.recipe.root)

    @cached_property
    def input_digests(self) -> dict[str, str]:
        """Input file -> hash."""
        found = {
            path
            for name, data in self.recipe.data.items()
            for path in load.files(data, self.recipe.root, name)
        }
        memo = self.runs / ".digests.json"
        return {
            shown(path, self.recipe.root): memoised_digest(path, memo) for path in sorted(found)
        }

    @cached_property
    def corpora(self) -> dict[str, Corpus]:
        """Every data set, read."""
        return {
            name: load.load(data, name, self.recipe.root, self.recipe.seed)
            for name, data in self.recipe.data.items()
        }

    @property
    def corpus(self) -> Corpus:
        """The task's data set."""
        return self.corpora[self.task.data]

    @cached_property
    def exams(self) -> list[Assignment]:
        """What every system is asked: the tasks, on all data that is trained on."""
        return [self.assignment(task, data, name) for name, task, data in exams(self.recipe)]

    def assignment(
        self, task: Task, data: str | None = None, name: str | None = None
    ) -> Assignment:
        """A task on its data set, or on another."""
        chosen = task.name if name is None else name
        return Assignment(self.recipe, self.corpora, self.base, task, data or task.data, chosen)

    @cached_property
    def card(self) -> Card:
        """The task's card, its labels fixed."""
        return self.exams[0].card

    def part(self, name: PartName) -> list[Example]:
        """The task's examples of a part."""
        return self.exams[0].part(name)

    def test_part(self) -> list[Example]:
        """What is measured: the test part of the task."""
        return self.exams[0].test_part()

    def with_shots(self, exam: Assignment, asked: list[Example]) -> dict[str, list[Example]]:
        """Questions behind worked examples of the training part, under the name of the system that
        is asked so; none unless wanted."""
        shots = exam.task.shots
        if not shots or exam.output != "text":
            return {}
        return {
            few_shot(shots): with_shots(
                asked, exam.part("train"), exam.card, shots, self.recipe.seed
            )
        }

    @cached_property
    def profile(self) -> Profile:
        """The strictest profile among the notes."""
        return strictest(note.profile for corpus in self.corpora.values() for note in corpus.notes)

    def through(self, actions: Sequence[Action]) -> Run:
        """Have the result of every step in the run, one action for each."""
        steps, run = (
            self.steps(),
            self.run,
        )  # finds missing files and bases before anything is written
        assert_outside(run.folder)
        with run.locked():
            before = run.manifest if (run.folder / "manifest.json").is_file() else None
            created = before.created if before else now()
            keys = {step.name: step.key for step in steps}
            if (
                before
                and (before.status, before.steps) == ("done", keys)
                and all(map(run.is_done, steps))
            ):
                run.done = dict.fromkeys(keys, "cached")
                return run
            write_text(run.folder / "recipe.yaml", self.recipe.yaml())
            run.write_manifest(self.manifest(created, "running"))
            try:
                for step, action in zip(steps, actions, strict=True):
                    run.do(step, action)
            except Exception:
                with suppress(
                    UserError
                ):  # a full disk may refuse this too; the first error is the one to tell
                    run.write_manifest(self.manifest(created, "failed"))
                raise
            run.clear_scratch()
            run.write_manifest(self.manifest(created, "done"))
        return run

    # The steps: what each depends on. ``dump`` leaves out what cannot change a result.

    @property
    def _data_settings(self) -> dict[str, Any]:
        return {"data": _dump(self.recipe)["data"], "seed": self.recipe.seed}

    def data_step(self) -> Step:
        return Step(
            name="data", settings=self._data_settings, inputs=self.input_digests, into="data"
        )

    def train_step(self, number: int | None = None) -> Step:
        """The step of a stage, counted from 0; the last where not given."""
        number = len(self.recipe.stages) - 1 if number is None else number
        chosen, stage = self.recipe.stages[number], _dump(self.recipe)["stages"][number]
        stage.pop("track")
        kept = {"data", "output", "limits", "generate"}
        tasks = {
            task.title: {
                **task.model_dump(mode="json", include=kept),
                "card": self.recipe.card(task).model_dump(mode="json"),
            }
            for task in self.recipe.tasks_of(chosen)
        }
        settings = {**self._data_settings, "stage": stage, "tasks": tasks}
        names = ("digest", "segmenter", "window", "quantise", "dtype")
        base = {
            f"base.{name}".removesuffix(".digest"): str(getattr(self.base, name)) for name in names
        }
        if self.base.chat_template:
            base["base.chat_template"] = sha256(self.base.chat_template.encode())
        into = f"train/{chosen.title(number + 1)}"
        inputs = {**self.input_digests, **base, **self._start_inputs(number)}
        return Step(name=into, settings=settings, inputs=inputs, into=into)

    def _start_inputs(self, number: int) -> dict[str, str]:
        """Hashes of what a stage goes on from."""
        stage, found = self.recipe.stages[number], {}
        if stage.start == "previous" and number:
            found["start"] = self.train_step(number - 1).key
        elif stage.start not in ("base", "previous"):
            found["start"] = file_digest(self.start(number) / "artefact.json")  # type: ignore[operator]
        adapter = getattr(stage.method, "adapter", None)
        if adapter is not None:
            files = sorted((self.recipe.root / adapter).glob("adapter_*"))
            if not files:
                raise UserError(
                    f"stages[{number}].method.adapter: {self.recipe.root / adapter} holds no "
                    "adapter; give a folder with "
                    "adapter_config.json and adapter_model.safetensors."
                )
            found["adapter"] = digest({path.name: file_digest(path) for path in files})
        return found

    def start(self, number: int) -> Path | None:
        """The artefact that a stage goes on from; None: the base."""
        name = self.recipe.stages[number].start
        if name == "base" or (name == "previous" and not number):
            return None
        if name == "previous":
            return self.run.folder / self.train_step(number - 1).into
        return artefact_of(self.recipe.root / name)

    def eval_step(self, exam: Assignment | None = None) -> Step:
        """The step that asks every system one task."""
        exam = exam or self.exams[0]
        into = f"eval/{exam.name or self.recipe.card(exam.task).name}"
        asked = {
            name: value for name, value in _dump(self.recipe)["evaluate"].items() if name != "floor"
        }
        settings = {"evaluate": asked, "seed": self.recipe.seed}
        if len(self.exams) > 1:
            settings["data"] = exam.data
        settings |= {"shots": exam.task.shots} if exam.task.shots else {}
        trained = [self.train_step(number).key for number in range(len(self.recipe.stages))]
        return Step(
            name=into,
            settings=settings,
            inputs={"train": trained[0] if len(trained) == 1 else digest(trained)},
            into=into,
        )

    def eval_steps(self) -> list[Step]:
        return [self.eval_step(exam) for exam in self.exams]

    def report_step(self) -> Step:
        asked = self.eval_steps()
        inputs = {
            "data": self.data_step().key,
            **{"eval" if len(asked) == 1 else step.name: step.key for step in asked},
        }
        return Step(name="report", settings={"recipe": _dump(self.recipe)}, inputs=inputs)

    def steps(self) -> list[Step]:
        """All steps in their order."""
        stages = [self.train_step(number) for number in range(len(self.recipe.stages))]
        return [self.data_step(), *stages, *self.eval_steps(), self.report_step()]

    def actions(self, train: Callable[..., None] | None = None) -> list[Action]:
        """The work of each step; ``train`` takes the place of training a stage."""
        stages = [
            partial(train or self.do_train, number=number)
            for number in range(len(self.recipe.stages))
        ]
        asked = [partial(self.do_eval, exam=exam) for exam in self.exams]
        return [self.do_data, *stages, *asked, self.do_report]

    # What each does: writes to the empty folder that it is given.

    def do_data(self, folder: Path) -> None:
        """Read everything, account for every row, split."""
        self.tracker.start("reading the data")
        for name, corpus in self.corpora.items():
            write_jsonl(folder / f"{name}.ledger.jsonl", corpus.ledger)
        data = self.recipe.data
        splitfile.write(self.corpora, data, self.recipe.root, folder, self.input_digests, now())
        summaries = [
            summary(data[name], self.recipe.root, corpus) for name, corpus in self.corpora.items()
        ]
        write_json(folder / "summary.json", summaries)
        counts = {
            part: sum(len(corpus.part(part)) for corpus in self.corpora.values()) for part in PARTS
        }
        self.tracker.end(", ".join(f"{count} {part}" for part, count in counts.items()))

    def do_train(self, folder: Path, number: int = 0) -> None:
        """Train a stage."""
        if self.recipe.launch.processes > 1 and processes.world() == 1:
            self.tracker.start(f"training in {self.recipe.launch.processes} processes")
            given = [
                *(str(path.resolve()) for path in (self.run.folder, self.recipe.root, folder)),
                str(number),
            ]
            processes.start(self.recipe.launch.processes, "residency.workflows.torchrun", given)
            self.tracker.end()
            return
        from residency.train.trainer import train

        stage, step = self.recipe.stages[number], self.train_step(number)
        self.tracker.start(f"training {stage.title(number + 1)}")
        scratch = self.run.scratch(step)
        scratch.mkdir(parents=True, exist_ok=True)
        with silent():
            result, items = train(self.job(number, scratch, folder))
        if not processes.first():
            return
        entries = [
            Entry(
                file="",
                line=0,
                id=id,
                status="windowed",
                reason="longer than the model reads at once",
                count=n,
            )
            for id, n in items.windowed.items()
        ]
        entries += [
            Entry(file="", line=0, status="repaired", reason=f"for training: {why}", count=n)
            for why, n in items.changed.items()
        ]
        entries += [
            Entry(file="", line=0, id=id, status="rejected", reason=f"for training: {why}")
            for id, why in items.rejected.items()
        ]
        write_jsonl(folder / "ledger.jsonl", entries)
        best = (
            f"best {result.metric} {result.best:.3f} at epoch {result.best_epoch:g}"
            if result.best
            else "last model kept"
        )
        self.tracker.end(best)

    def job(self, number: int, work: Path, out: Path) -> TrainingJob:
        """What a stage needs to be trained."""
        from residency.train.trainer import TrainingJob

        stage = self.recipe.stages[number]
        tasks = self.recipe.tasks_of(stage)
        chosen = [self.assignment(task, stage.data) for task in tasks]
        first = chosen[0]
        alike = ("text", *_writes(first.task))
        if len(chosen) > 1 and any((one.output, *_writes(one.task)) != alike for one in chosen):
            raise UserError(
                f"stages[{number}].tasks: several tasks in one stage must all be answered in "
                "words, with the same limits and "
                "generate; name one of them, or set output: text."
            )
        train, dev = (
            first.part(name)
            + [row for one in chosen[1:] for row in marked(one.part(name), one.data)]
            for name in ("train", "dev")
        )
        cards = [one.card for one in chosen[1:]]
        if stage.replay:
            general = self.assignment(replay_task(self.recipe, stage), stage.replay.data)
            if general.output != first.output or (
                first.output == "head" and general.card.names != first.card.names
            ):
                raise UserError(
                    f"stages[{number}].replay.data: {stage.replay.data} is answered in another way "
                    "than the stage's task."
                )
            rows = replayed(general, len(train), stage.replay, self.recipe.seed)
            train, cards = [*train, *rows], [*cards, general.card]
        method = stage.method
        if adapter := getattr(method, "adapter", None):
            method = method.model_copy(update={"adapter": str(self.recipe.root / adapter)})
        return TrainingJob(
            stage=stage.model_copy(update={"method": method}),
            name=stage.title(number + 1),
            base=self.base,
            card=first.card,
            more=tuple(
                {card.name: card for card in cards if card.name != first.card.name}.values()
            ),
            train=train,
            dev=dev,
            seed=self.recipe.seed,
            profile=self.profile,
            work=work,
            out=out,
            progress=self.tracker.update,
            output=first.output,
            limits=first.task.limits,
            generate=first.task.generate,
            max_rejected=self.recipe.data[first.data].loss,
            start=self.start(number),
            forecast=True,
            shard=self.recipe.launch.shard and processes.world() > 1,
        )

    def systems(self) -> list[tuple[str, Path]]:
        """Name and artefact of every tuned system: ``tuned``, or of several stages each."""
        folders = [
            self.run.folder / self.train_step(number).into
            for number in range(len(self.recipe.stages))
        ]
        return [("tuned" if len(folders) == 1 else folder.name, folder) for folder in folders]

    def do_eval(self, folder: Path, exam: Assignment | None = None) -> None:
        """Measure the baselines and every tuned model on a test part."""
        from residency.evals import safety
        from residency.evals.measure import evaluate
        from residency.evals.paired_tests import compare, corrected
        from residency.models import predictors
        from residency.models.causal import CausalPredictor

        exam = exam or self.exams[0]
        card, test = exam.card, exam.test_part()
        if not test:
            raise UserError(
                f"data.{exam.data}.test: there is nothing to measure on; give a test part, or path "
                "with shares."
            )
        settings, title = self.recipe.evaluate, f" on {card.name}" if len(self.exams) > 1 else ""
        if settings.safety and exam.output != "text":
            raise UserError(
                "evaluate.safety: is about models that write, and this one marks or chooses; set "
                "it to false."
            )
        able = {
            name: path
            for name, path in self.systems()
            if predictors.answers(path, card, exam.output)
        }
        if not able:
            raise UserError(
                f"tasks: no stage makes a model that answers {card.name}; name it in the tasks of "
                "one."
            )
        most = predictors.longest_answer(able.values())
        trained = {
            name: read_json(path / "stage.json", StageResult).trainable
            for name, path in able.items()
        }
        shown = self.with_shots(exam, test)
        reports, answered, safe = [], [], []
        for name in (*settings.baselines, *shown, *able):
            self.tracker.start(f"evaluating {name}{title}", len(test))
            with silent():
                predictor = (
                    predictors.trained(able[name], card, name)
                    if name in able
                    else self.untuned(list(able.values())[-1], exam)
                )
                predictors.allow(predictor, most)
                predictor.info = msgspec.structs.replace(
                    predictor.info, name=name, trainable=trained.get(name, 0)
                )
                report, predictions = evaluate(
                    predictor,
                    shown.get(name, test),
                    card,
                    bootstrap=settings.bootstrap,
                    seed=self.recipe.seed,
                    show_text=self.show_text,
                    progress=self.tracker.update,
                )
            write_jsonl(
                folder / f"{name}.predictions.jsonl",
                (as_kept(one, self.show_text) for one in predictions),
            )
            reports.append(report)
            answered.append((report.system, predictions))
            if settings.safety and name not in shown and isinstance(predictor, CausalPredictor):
                with silent():
                    safe.append(
                        safety.asked(predictor.asked(safety.card()), show_text=self.show_text)
                    )
            self.tracker.end(
                " ".join(
                    f"{s.metric} {s.value:.3f}"
                    for s in report.scores
                    if s.metric == card.main_metric
                )
            )
        last = answered[-1]
        tests = [compare(test, other, last, card, seed=self.recipe.seed) for other in answered[:-1]]
        found = corrected([one for several in tests for one in several])
        reports[-1] = msgspec.structs.replace(reports[-1], comparisons=found)
        write_json(folder / "reports.json", [*reports, *safety.together(safe, self.recipe.seed)])

    def untuned(
        self, artefact: Path, exam: Assignment | None = None
    ) -> EncoderPredictor | CausalPredictor:
        """The base as it is; a model that writes has the template and settings of the tuned one."""
        from residency.models.causal import CausalPredictor
        from residency.models.encoder import EncoderPredictor

        exam = exam or self.exams[0]
        if exam.output == "text":
            return CausalPredictor.untuned_of(artefact, card=exam.card)
        return EncoderPredictor.untuned(self.base, exam.card, self.recipe.seed)

    @property
    def show_text(self) -> bool:
        """Whether a report may quote notes."""
        asked = self.recipe.evaluate.show_text
        return self.profile in SHOWABLE if asked == "auto" else bool(asked)

    def do_report(self, folder: Path) -> None:
        """Write the report, its plots and the model card, and what they were made from."""
        from residency.evals.report import render

        self.tracker.start("writing the report")
        facts = self.facts()
        render(facts, folder)
        write_json(folder / "facts.json", facts)
        self.tracker.end()

    def learned_from(self) -> list[str]:
        """For each tuned system the data set that its own stage learned from (the first of several
        tasks')."""
        return [stage.data or self.recipe.tasks_of(stage)[0].data for stage in self.recipe.stages]

    def facts(self) -> RunFacts:
        """Everything that the report shows, read from the finished steps."""
        folder, trained = self.run.folder, [path for _, path in self.systems()]
        data = read_json(folder / "data/summary.json", list[DataSummary])
        more: dict[str, list[Entry]] = {}
        for name, path in zip(self.learned_from(), trained, strict=True):
            lines = (path / "ledger.jsonl").read_bytes().splitlines()
            more.setdefault(name, []).extend(
                msgspec.json.decode(line, type=Entry) for line in lines
            )
        caveats = list(dict.fromkeys(words for path in trained if (words := erased.warning(path))))
        caveats += [f"data.{one.name}: {words}" for one in data for words in one.warnings]
        if all(note.origin.startswith("synthetic:") for note in self.corpus.notes):
            caveats.append(DEMO_CAVEAT)
        if self.base.id.startswith("bundled:"):
            caveats.append(BUNDLED_CAVEAT)
        stages = tuple(read_json(path / "stage.json", StageResult) for path in trained)
        caveats += rule_of(self.card, stages[-1].trainable, stages[-1].parameters)
        reports = tuple(
            report
            for step in self.eval_steps()
            for report in read_json(folder / step.into / "reports.json", list[Report])
        )
        caveats += shortfall(reports, self.recipe.evaluate.floor)
        return RunFacts(
            name=self.recipe.name,
            folder=folder.as_posix(),
            created=self.run.manifest.created,
            recipe=self.recipe.yaml(),
            base=self.base.id,
            base_digest=self.base.digest,
            hardware=hardware(),
            packages=packages(),
            data=tuple(with_entries(one, more.get(one.name, [])) for one in data),
            stages=stages,
            reports=reports,
            caveats=tuple(caveats),
            show_text=self.show_text,
        )

    def manifest(self, created: str, status: str) -> Manifest:
        """The run's manifest; the profile is what the recipe says until the data was read."""
        read = self.run.folder / "data/summary.json"
        known = (
            read_json(read, list[DataSummary]) if status == "done" else self.recipe.data.values()
        )
        return Manifest(
            schema=SCHEMA,
            name=self.recipe.name,
            recipe_digest=self.recipe.digest,
            root=str(self.recipe.root),
            created=created,
            code=packages().get("residency", ""),
            packages=packages(),
            hardware=hardware(),
            inputs=self.input_digests,
            profile=strictest(data.profile for data in known),
            status=status,
            steps={step.name: step.key for step in self.steps()},
            launch=processes.described(self.recipe.launch),
        )


Action = Callable[[Path], None]
"""The work of a step; writes to the empty folder that it is given."""


def run(recipe: Recipe, runs: Path | str = "runs", tracker: Tracker | None = None) -> Run:
    """Run a recipe; what is there already is not done again. Returns the run, whose folder holds
    ``report.html``."""
    processes.check(recipe.launch)
    work = Work(recipe, Path(runs), (tracker if processes.first() else None) or Silent())
    return work.through(work.actions()) if processes.world() == 1 else together(work)


def split(recipe: Recipe, folder: Path, tracker: Tracker | None = None) -> list[SplitFile]:
    """Write the split of every data set of a recipe, as a run has it in ``data/``, and a page on
    them into a folder."""
    tracker = tracker or Silent()
    assert_outside(folder)
    tracker.start("reading the data")
    found = {
        shown(path, recipe.root): path
        for name, data in recipe.data.items()
        for path in load.files(data, recipe.root, name)
    }
    corpora = {
        name: load.load(data, name, recipe.root, recipe.seed) for name, data in recipe.data.items()
    }
    digests = {name: file_digest(path) for name, path in found.items()}
    files = splitfile.write(corpora, recipe.data, recipe.root, folder, digests, now())
    tracker.end(f"{sum(len(file.split.parts) for file in files)} notes")
    return files


def together(work: Work) -> Run:
    """The same under torchrun: the first process does everything, the others join it where it
    trains, and end after that."""

    def nothing() -> tuple[str, int] | None:
        return None

    if not processes.first():
        while (order := processes.shared(nothing)) is not None:
            work.do_train(Path(order[0]), order[1])
        raise SystemExit(0)

    def train(folder: Path, number: int) -> None:
        processes.shared(lambda: (str(folder), number))
        work.do_train(folder, number)

    try:
        return work.through(work.actions(train))
    finally:
        processes.shared(nothing)


def finished_facts(run: Run) -> RunFacts:
    """What the report of a finished run was made from."""
    return read_json(run.folder / "facts.json", RunFacts)


def explain(recipe: Recipe, runs: Path | str = "runs") -> list[tuple[str, str]]:
    """For each step whether it will run, and what about it changed."""
    work = Work(recipe, Path(runs), Silent())
    return [(step.name, work.run.explain(step)) for step in work.steps()]


def open_run(folder: Path | str) -> tuple[Run, Recipe]:
    """A finished run and its recipe, from its folder."""
    found = Run(Path(folder))
    manifest = found.manifest
    from residency.recipe import read_yaml

    recipe = Recipe.from_mapping(
        read_yaml(found.folder / "recipe.yaml"),
        Path(manifest.root),
        where=str(found.folder / "recipe.yaml"),
    )
    return found, recipe


def artefact_of(folder: Path | str) -> Path:
    """The trained model of a run's folder (or the artefact itself)."""
    folder = Path(folder)
    if (folder / "artefact.json").is_file():
        return folder
    Run(folder).manifest  # noqa: B018 - says what is wrong with the folder
    found = [path.parent for path in folder.glob("train/*/artefact.json")]
    if not found:
        raise UserError(f"{folder}: has no trained model yet; finish it with residency run.")
    return max(found, key=lambda path: int(path.name.partition("-")[0]))


def predict(run: Run | Path | str, notes: Iterable[Note | RawNote | str]) -> Iterator[Prediction]:
    """Answers of a run's model, one per note, in order, in constant memory. Identified notes stay
    in memory only.

    A model that writes is given the note's turns or columns where it has some, else its text as the
    question. The model is loaded, and its faults are raised, before the first answer is asked for.
    """
    from residency.models import predictors

    folder = run.folder if isinstance(run, Run) else run
    with silent():
        predictor = predictors.trained(artefact_of(folder))
    return predictor.predict(
        question(
            Note(id=str(number), text=note, profile="pseudonymised")
            if isinstance(note, str)
            else note,
            predictor.card,
        )
        for number, note in enumerate(notes)
    )


def evaluate(
    run: Run | Path | str, overrides: Sequence[str] = (), tracker: Tracker | None = None
) -> tuple[RunFacts, Path]:
    """Measure a run's model again, with other settings or on other data (``data.NAME.test=...``).

    Files named by an override are relative to the recipe's folder, and a test part takes the place
    of all that was named for that data set before. Writes a report of its own under
    ``RUN/evaluations`` and returns the facts in it and its folder.
    """
    work = evaluation(run, overrides, tracker)
    done = work.through((work.do_data, work.do_eval, work.do_report))
    return finished_facts(done), done.folder


def evaluation(
    run: Run | Path | str,
    overrides: Sequence[str] = (),
    tracker: Tracker | None = None,
    runs: Path | None = None,
) -> Evaluation:
    """A run's model and what it is measured on, with a recipe that may be changed; nothing is done
    yet."""
    from residency.recipe import read_yaml

    folder = run.folder if isinstance(run, Run) else Path(run)
    _, trained = open_run(folder)
    value = read_yaml(folder / "recipe.yaml")
    for name, data in value["data"].items():
        if any(text.startswith(f"data.{name}.test=") for text in overrides):
            for key in ("path", "train", "dev", "shares", "stop", "limit"):
                data.pop(key, None)
    recipe = Recipe.from_mapping(value, trained.root, overrides, where="recipe")
    return Evaluation(
        recipe, runs or folder / "evaluations", tracker or Silent(), artefact_of(folder), folder
    )


class Evaluation(Work):
    """A trained model measured once more; its training is taken as it is."""

    def __init__(
        self, recipe: Recipe, runs: Path, tracker: Tracker, artefact: Path, run: Path
    ) -> None:
        from residency.models.artefact import read

        super().__init__(recipe, runs, tracker)
        self.trained, self.trained_run = artefact, run
        learned = read(artefact).task().name
        named = (task for task in recipe.tasks if learned in (task.name, recipe.card(task).name))
        self.task = next(named, self.task)

    @cached_property
    def exams(self) -> list[Assignment]:
        """The task that the model learned."""
        return [
            Assignment(
                self.recipe, self.corpora, self.base, self.task, self.task.data, "", self.card
            )
        ]

    def systems(self) -> list[tuple[str, Path]]:
        return [("tuned", self.trained)]

    def learned_from(self) -> list[str]:
        return [self.task.data]

    def eval_steps(self) -> list[Step]:
        return [self.eval_step()]

    def steps(self) -> list[Step]:
        return [self.data_step(), *self.eval_steps(), self.report_step()]

    def facts(self) -> RunFacts:
        """As of a run; the folder is the one that predict takes."""
        return msgspec.structs.replace(super().facts(), folder=self.trained_run.as_posix())

    @cached_property
    def card(self) -> Card:
        """The card as the model learned it; raises ``UserError`` where the recipe's now asks
        something else."""
        from residency.models.artefact import read

        artefact = read(self.trained)
        learned, now = artefact.task(), self.recipe.card(self.task)
        if learned.name != now.name:
            if artefact.output != "text":
                raise UserError(
                    f"tasks[0].card: the model answers card {learned.name} with a head and cannot "
                    f"be asked {now.name}."
                )
            return fixed(now, self.corpus.part("test"), f"data.{self.task.data}")
        if artefact.output == "text":
            changed = [
                part
                for part in ("system", "prompt", "answer")
                if getattr(learned, part) != getattr(now, part)
            ]
            changed += (
                ["chat_template"] if artefact.base.chat_template != self.base.chat_template else []
            )
            if changed:
                raise UserError(
                    f"card {learned.name}: {' and '.join(changed)} changed after training, so the "
                    "model would be asked what it "
                    "did not learn; restore the file, or train again with residency run."
                )
        return learned

    def train_step(self, number: int | None = None) -> Step:
        artefact = {
            "artefact": digest(msgspec.json.decode((self.trained / "artefact.json").read_bytes()))
        }
        return Step(
            name="train",
            settings={},
            inputs={**artefact, **self.input_digests},
            into=str(self.trained.resolve()),
        )


def as_kept(prediction: Prediction, show_text: bool) -> Prediction:
    """A prediction as a run keeps it: offsets and labels, what was written only where notes may be
    shown."""
    answer = prediction.answer
    if isinstance(answer, Spans):
        answer = Spans(
            spans=tuple(msgspec.structs.replace(span, quote="") for span in answer.spans)
        )
    elif isinstance(answer, Text | Facts | Tree) and not show_text:
        answer = type(answer)()
    return msgspec.structs.replace(
        prediction, answer=answer, text=prediction.text if show_text else ""
    )


def _writes(task: Task) -> tuple[Any, Any]:
    """How a task's answers are read and written."""
    return task.limits, task.generate


def _dump(recipe: Recipe) -> dict[str, Any]:
    return recipe.model_dump(mode="json", by_alias=True)
