"""What the benchmarks share: subjects and their measurements, tables and results, child processes,
corpora, runs."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha256
from itertools import chain, islice
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from residency.core.errors import ResidencyError, UserError
from residency.core.files import read_json, write_text
from residency.core.run_folder import hardware, now, packages
from residency.core.types import Example, Note, RunFacts, Span
from residency.metrics.spans import count

HERE = Path(__file__).resolve().parent
ROOT, RESULTS = HERE.parent, HERE / "results"
TINY, TINY_LM = "bundled:tiny-encoder", "bundled:tiny-lm"
LANGUAGES = ("vi", "zh", "en")


class Subject:
    """A script's measurements, each with the options that it is called with."""

    def __init__(self, text: str | None) -> None:
        self.parser = argparse.ArgumentParser(description=text)
        self.below = self.parser.add_subparsers(dest="measurement", required=True)
        self.measurements: dict[str, tuple[Callable[[argparse.Namespace], None], str]] = {}

    def measure(self, options: str = "", quick: str = "", **choices: Iterable[str]) -> Any:
        """Register a function that measures. ``options`` are its options with their defaults, as
        one writes them on a command line (none: a switch; ``[]``: a list, empty); ``quick`` are
        those with which it shows in a minute or two that it works."""

        def register(function: Callable[[argparse.Namespace], None]) -> Any:
            name = function.__name__.strip("_").replace("_", "-")
            self.measurements[name] = function, quick
            text = (inspect.getdoc(function) or "").replace("%", "%%")
            style = {"formatter_class": argparse.RawDescriptionHelpFormatter}
            first = text.partition("\n\n")[0]
            made = self.below.add_parser(name, help=first, description=text, **style)
            made.add_argument("--quick", action="store_true", help="tiny: measures nothing")
            made.add_argument("--threads", type=int, default=os.cpu_count(), help="of each process")
            for option in options.split("--")[1:]:
                name, *words = option.split()
                if not words:
                    made.add_argument(f"--{name}", action="store_true")
                    continue
                values = [] if words == ["[]"] else [_literal(word) for word in words]
                many = len(values) != 1
                how = {"default": values if many else values[0], "nargs": "*" if many else None}
                how |= {"type": type([*values, ""][0]), "help": f"default: {' '.join(words)}"}
                made.add_argument(f"--{name}", **how, choices=choices.get(name))
            return function

        return register

    def main(self, arguments: Sequence[str] | None = None) -> None:
        """Run what is asked for; a fault that the user can mend is one sentence, exit code 1."""
        os.environ |= {"HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
        arguments = list(sys.argv[1:] if arguments is None else arguments)
        given = self.parser.parse_args(arguments)
        function, quick = self.measurements[given.measurement]
        if given.quick:
            given = self.parser.parse_args([arguments[0], *quick.split(), *arguments[1:]])
        given.name = f"{Path(inspect.getfile(function)).stem}-{given.measurement}"
        try:
            function(given)
        except ResidencyError as error:
            sys.exit(f"{given.name}: {error}")


def _literal(text: str) -> int | float | str:
    """A default as the type that it looks like; ``''`` is empty."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text.strip("'")


class Table:
    """Rows of text under columns, said as they are added; `` | `` parts the cells of a line."""

    def __init__(self, columns: str) -> None:
        self.lines = [columns.split(" | ")]

    def add(self, line: str) -> None:
        """A row."""
        self.lines.append(line.split(" | "))
        say(line)

    def __str__(self) -> str:
        widths = [max(map(len, column)) for column in zip(*self.lines, strict=True)]
        return "\n".join("  ".join(map(str.ljust, one, widths)).rstrip() for one in self.lines)


def report(
    given: argparse.Namespace, table: Table, suffix: str = "", name: str = "", **measured: Any
) -> None:
    """Print a table, write ``results/NAME.json`` (``NAME.quick.json`` of a quick run, which
    measures nothing) and put the table into the accounts beside it."""
    name, of = (name or given.name) + suffix, {"date": now(), "machine": hardware()}
    settings = {"threads": given.threads, "packages": packages(), "settings": vars(given)}
    shown = {"table": {"columns": table.lines[0], "rows": table.lines[1:]}}
    result = {"benchmark": name, **of, **settings, **shown, **measured}
    path = RESULTS / f"{name}{'.quick' if given.quick else ''}.json"
    write_text(path, json.dumps(result, indent=1, ensure_ascii=False, default=str) + "\n")
    print(f"\n{table}\n\n{hardware()}, {given.threads} threads; {path}")
    for account in RESULTS.glob("*.md") if not given.quick else ():
        write_text(account, filled(account.read_text("utf-8")))


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with every ``<!-- results: NAME -->`` block as its result file has it."""

    def block(match: re.Match[str]) -> str:
        found = json.loads((results / f"{match[1]}.json").read_text("utf-8"))
        columns = found["table"]["columns"]
        lines = [columns, ["---"] * len(columns), *found["table"]["rows"]]
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        versions = ", ".join(f"{name} {version}" for name, version in found["packages"].items())
        where = f"on {found['machine']}, {found['threads']} threads; {versions}."
        inside = f"{table}\n\nMeasured {found['date'][:10]} {where}"
        return f"<!-- results: {match[1]} -->\n\n{inside}\n\n<!-- end -->"

    return re.sub(r"<!-- results: ([\w-]+) -->\n.*?<!-- end -->", block, page, flags=re.S)


def say(text: str) -> None:
    """A word on how far it is."""
    print(text, flush=True)


def spread(values: Sequence[float], form: str = ",.0f") -> str:
    """Median and range."""
    return f"{median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def interval(value: float, low: float | None, high: float | None, form: str = ".3f") -> str:
    """A value with the ends of its interval (0 where there is none)."""
    return f"{value:{form}} [{low or 0.0:{form}}, {high or 0.0:{form}}]"


def ratios(runs: Sequence[Any], others: Sequence[Any], key: str) -> list[float]:
    """A figure of one system over another's in the same round, round by round."""
    return [one[key] / other[key] for one, other in zip(runs, others, strict=True)]


def in_turn(systems: Sequence[str], rounds: int, warm: int = 0) -> Iterator[tuple[int, str]]:
    """(round, system): each system is first, last and between equally often, so that a slow minute
    of the machine hits all of them. Rounds below 0 are not to be counted."""
    for turn in range(-warm, rounds):
        start = turn % len(systems)
        for name in (*systems[start:], *systems[:start]):
            yield turn, name


@contextmanager
def resumed(given: argparse.Namespace) -> Iterator[tuple[list[dict[str, Any]], Callable[[], None]]]:
    """Measurements that an interrupted run has left, and what keeps those that are there now; both
    are forgotten where the context ends well."""
    path = RESULTS / f"{given.name}.partial.json"
    kept = path.is_file() and not given.quick
    found: list[dict[str, Any]] = json.loads(path.read_text("utf-8")) if kept else []
    yield found, lambda: None if given.quick else write_text(path, json.dumps(found))
    path.unlink(missing_ok=True)


def environment(threads: int) -> dict[str, str]:
    """Variables of a child process: offline, so many threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    more = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true"}
    return {**os.environ, **more, **dict.fromkeys(names, str(threads))}


def ended(command: Sequence[str | Path], threads: int) -> str:
    """What a command wrote on standard output; raises ``UserError`` with its last line where it
    fails."""
    how = {"env": environment(threads), "capture_output": True, "text": True}
    done: Any = subprocess.run(list(map(str, command)), check=False, **how)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["nothing was said"]
        raise UserError(f"{Path(command[0]).name} ended with {done.returncode}: {said[-1]}")
    return str(done.stdout)


def apart(function: Callable[..., Any], *arguments: Any, threads: int) -> Any:
    """What a function of these scripts returns (JSON), called in a process of its own, offline."""
    name = f"{Path(inspect.getfile(function)).stem}.{function.__name__}"
    given = json.dumps(arguments, default=str)
    said = ended([sys.executable, HERE / "_child.py", name, given], threads)
    return json.loads(said.strip().splitlines()[-1])


def foreign_python(name: str, *packages: str) -> Path:
    """Python of an environment that holds a tool to compare with; made once, under ``.bench/``."""
    folder = ROOT / ".bench" / name
    python = folder / "bin/python"
    if not (folder / "ready").is_file():
        say(f"installing {', '.join(packages)} into {folder.relative_to(ROOT)} ...")
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(install, check=True, stdout=sys.stderr)
        (folder / "ready").touch()
    return python


def peak_memory_mb() -> float:
    """Most memory that this process has held, in MB.

    Linux's ``ru_maxrss`` also counts what the parent held before it started this process, so its
    own mark is read.
    """
    status = Path("/proc/self/status")
    if status.is_file() and (mark := re.search(r"VmHWM:\s+(\d+)", status.read_text())):
        return int(mark[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


@contextmanager
def folder(keep: str | Path | None = None) -> Iterator[Path]:
    """The folder named, or one that is gone afterwards."""
    with tempfile.TemporaryDirectory() as made:
        Path(keep or made).mkdir(parents=True, exist_ok=True)
        yield Path(keep or made).resolve()


CORPORA: dict[str, dict[str, Any]] = yaml.safe_load("""
vietbioner: {format: conll, train: vi/vietbioner/train.txt, test: vi/vietbioner/dev.txt, lang: vi}
cmedqaner:
  {format: jsonl, train: zh/cmedqaner/train.json, test: zh/cmedqaner/dev.json, lang: zh,
   fields: {entities: mention_data, start: offset, quote: mention, label: type}}
ncbi: &ncbi
  {format: conll, train: en/ncbi_disease/train.tsv, test: en/ncbi_disease/devel.tsv, lang: en}
ncbi-1500: *ncbi
""")
"""Corpora of entities as their authors published them, with the development part as test; of
``ncbi-1500`` the first 1,500 training sentences."""


def shared_data() -> Path:
    """Folder of the real corpora; raises ``UserError`` where there is none."""
    path = Path(os.environ.get("RESIDENCY_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        raise UserError(f"no corpora at {path}; name their folder in RESIDENCY_SHARED_DATA.")
    return path.resolve()


def corpus(name: str) -> tuple[list[Note], list[Note]]:
    """Training and test notes of a corpus of entities."""
    train, test = notes({**CORPORA[name], "stop": 0, "profile": "public"}, shared_data())
    return train[: 1500 if name == "ncbi-1500" else None], test


def notes(settings: Mapping[str, Any], folder: Path) -> tuple[list[Note], list[Note]]:
    """Training and test notes of a data set as a recipe names it."""
    from residency.core.part import parse
    from residency.corpus.load import Data, load

    found = load(parse(Data, dict(settings), "data"), "data", folder, 0)
    return found.part("train"), found.part("test")


def write_parts(where: Path, lang: str | None, **parts: Iterable[Note]) -> dict[str, Any]:
    """Write parts as JSON lines; the settings that read them, all of train learned from."""
    from residency.corpus.write import write_jsonl

    where.mkdir(parents=True, exist_ok=True)
    for part, notes in parts.items():
        write_jsonl(notes, where / f"{part}.jsonl")
    paths = {part: str(where / f"{part}.jsonl") for part in parts}
    found = {"format": "jsonl", **paths, "profile": "public", "stop": 0}
    return {**found, "lang": lang} if lang else found


def with_stop_part(data: dict[str, Any]) -> dict[str, Any]:
    """The same data, of which a recipe's default draws the part that early stopping looks at."""
    return {key: value for key, value in data.items() if key != "stop"}


def write_json_parts(where: Path, parts: dict[str, Any]) -> dict[str, str]:
    """Write the parts of a data set as JSON; their settings."""
    where.mkdir(parents=True, exist_ok=True)
    for part, rows in parts.items():
        (where / f"{part}.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    return {part: str(where / f"{part}.json") for part in parts}


def shuffled(items: Iterable[Any], seed: int = 0) -> list[Any]:
    """Another order."""
    found = list(items)
    random.Random(seed).shuffle(found)
    return found


def tenth(text: str) -> int:
    """0 to 9 by the SHA-256 of a text: 9 is the test part, 8 the part that early stopping looks at,
    the rest train, as fixed before the bundled models were pre-trained."""
    return int(sha256(text.encode()).hexdigest(), 16) % 10


def huatuo(name: str) -> list[dict[str, str]]:
    """Questions and answers of a Huatuo file (``general``, ``liver``), written by a model."""
    files = {"general": "general_qa.jsonl", "liver": "liver_cancer.json"}
    text = (shared_data() / "zh/huatuo" / files[name]).read_text("utf-8")
    whole = text.lstrip().startswith("[")
    return list(json.loads(text)) if whole else [json.loads(line) for line in text.splitlines()]


def invented(number: int, seed: int = 90_000, langs: Sequence[str] = LANGUAGES) -> Iterator[Note]:
    """Invented notes, in turn Vietnamese, Chinese and English."""
    from residency.synth.clinical_notes import records

    made = [records(lang, -(-number // len(langs)), seed=seed) for lang in langs]
    return islice(chain.from_iterable(zip(*made, strict=True)), number)


def base_of(name: str | Path, **more: Any) -> Any:
    """A base model by its id."""
    from residency.models.base import BaseModelSettings, resolve

    return resolve(BaseModelSettings(id=str(name), **more), Path.cwd())


def items(base: Any, card: Any, rows: list[Example]) -> Any:
    """Rows as training makes them, with the proof of what is trained."""
    from residency.models.generation import TokenLimits
    from residency.models.predictors import output_of
    from residency.tasks.families import head_of
    from residency.train.kinds import Reading, training_of

    how = Reading(base, card, TokenLimits(), "all", 1.0)
    return training_of(head_of(card, output_of("auto", base, card))).read(rows, how)[1]


def as_tokens(item: Any) -> dict[str, list[int]]:
    """A row's tokens and labels."""
    mask = [1] * len(item.ids)
    return {"input_ids": item.ids, "attention_mask": mask, "labels": item.targets}


def recipe(
    name: str, base: str | Path, data: Any, card: str, *stages: Any, seed: int = 7, **evaluate: Any
) -> dict[str, Any]:
    """A recipe with one data set and one task; ``evaluate`` are settings of that section."""
    base = Path(base).resolve() if Path(base).exists() else base
    found = {"schema": 1, "name": name, "seed": seed, "base": str(base), "data": {"notes": data}}
    found |= {"tasks": [{"card": card, "data": "notes"}], "evaluate": {"baselines": [], **evaluate}}
    return found | ({"stages": list(stages)} if stages else {})


def finish(recipe: Mapping[str, Any], work: Path, threads: int) -> tuple[Path, RunFacts]:
    """Run a recipe in a process of its own; the run's folder and what its report says."""
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{recipe['name']}.yaml"
    path.write_text(json.dumps(recipe), "utf-8")  # JSON is YAML
    found = Path(apart(run_recipe, path, work / "runs", threads=threads))
    return found, read_json(found / "facts.json", RunFacts)


def run_recipe(path: str, runs: str) -> str:
    """Run a recipe in this process; the run's folder."""
    import residency

    return str(residency.run(residency.Recipe.load(path), runs).folder)


def artefact(run: Path) -> Path:
    """The model of a finished run's last stage (or the artefact itself)."""
    found = [path.parent for path in run.glob("train/*/artefact.json")]
    return max(found, key=lambda path: int(path.name.partition("-")[0])) if found else run


def strict_f1(notes: Sequence[Note], answers: Iterable[Iterable[Span]]) -> float:
    """Micro F1 over spans: start, end and label equal."""
    pairs = zip(notes, answers, strict=True)
    every = [one for note, spans in pairs for one in count(note.spans, tuple(spans)).values()]
    tp = sum(one.tp for one in every)
    return 2 * tp / (2 * tp + sum(one.fp + one.fn for one in every)) if tp else 0.0
