"""What tuning teaches on real corpora: scores beside a plain loop, a base, synthetic rows, stages.

Recipes leave to the defaults what is not said; what is measured decides nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from argparse import Namespace
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from random import Random
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

import _common as common
import _plain
from _common import CORPORA, TINY, TINY_LM, Subject, Table, interval
from residency.core.types import Note, Report, RunFacts, Span

SUBJECT = Subject(__doc__)
measure = SUBJECT.measure
ENTITIES = ("vietbioner", "cmedqaner", "ncbi")
METRICS = ("span_f1", "accuracy", "loss", "rouge_l", "bleu", "chrf")


def shown(report: Report, metric: str) -> str:
    """The score over all labels of a metric, with its interval."""
    score = next(score for score in report.scores if score.metric == metric)
    return interval(score.value, score.low, score.high)


@measure(
    "--corpora vietbioner ncbi cmedqaner --seeds 1 --base e5-small --plain",
    quick="--corpora vietbioner --base bundled:tiny-encoder --plain",
    corpora=ENTITIES,
)
def floor(given: Namespace) -> None:
    """500 records of a corpus: the default, the base and the CRF of its report, and a plain loop.

    A recipe that names data and base alone, on the authors' development part, seed by seed. --plain:
    AdamW over all layers at 1e-4, the head at 1e-3, embeddings frozen, 15 passes of 16 rows, bf16,
    the likeliest tag. Seconds are those of the processor: run with --threads 1.
    """
    table = Table("corpus | seed | system | F1 | less the CRF | processor seconds | peak MB")
    with common.folder() as work:
        for corpus, seed in [(name, n) for name in given.corpora for n in range(given.seeds)]:
            here, test = work / f"{corpus}-{seed}", common.corpus(corpus)[1]
            data, card, train = source(corpus, here, 40 if given.quick else 500, seed)
            value = common.recipe(here.name, given.base, data, card, seed=seed)
            del value["evaluate"]
            begun = sum(os.times()[2:4])
            facts = common.finish(value, work, given.threads)[1]
            took = f"{sum(os.times()[2:4]) - begun:.0f} | {facts.stages[-1].peak_memory_mb:,.0f}"
            for one in facts.reports:
                tests = [t for t in one.comparisons if (t.a, t.metric) == ("crf", "span_f1")]
                less = [interval(t.difference, t.low, t.high, "+.3f") for t in tests]
                own = took if one.system.name == "tuned" else " | "
                cells = [one.system.name, shown(one, "span_f1"), "".join(less), own]
                table.add(" | ".join([corpus, str(seed), *cells]))
            if given.plain:
                (here / "notes.json").write_bytes(msgspec.json.encode([train, test]))
                call = (plainly, here / "notes.json", given.base, seed, 1 if given.quick else 15)
                one = common.apart(*call, threads=given.threads)
                answers = [[Span(**span) for span in spans] for spans in one["answers"]]
                cells = f"{common.strict_f1(test, answers):.3f} |  | {one['seconds']:.0f}"
                table.add(f"{corpus} | {seed} | plain loop | {cells} | {one['peak']:,.0f}")
    common.report(given, table)


def plainly(path: str, base: str, seed: int, passes: int) -> dict[str, Any]:
    """The plain loop on our tokens in this process; its tags read as ours are."""
    from residency.models.artefact import tokeniser
    from residency.tasks.bio import decode
    from residency.tasks.card import load_card
    from residency.tasks.examples import examples, fixed
    from residency.tasks.heads import TOKENS

    train, test = msgspec.json.decode(Path(path).read_bytes(), type=list[list[Note]])
    model, card = common.base_of(base), fixed(load_card("ner"), train, "data.notes")
    parts = [common.items(model, card, examples(part, card)).items for part in (train, test)]
    first = [
        {item.example: item for item in reversed(part)} for part in parts
    ]  # cut, as scripts do
    rows, held = ([common.as_tokens(part[id]) for id in reversed(part)] for part in first)
    begun = time.process_time()
    every = _plain.loop(rows, held, len(TOKENS.outputs(card)), model.path, seed, passes)
    seconds, read, answers = time.process_time() - begun, tokeniser(model), []
    for note, tags in zip(test, every, strict=True):
        tokens = read([note.text])[0]
        tags = [*tags[len(read.prefix) :], *(0 for _ in tokens.ids)]
        found = [tags[first] for first in tokens.firsts]
        spans = decode(note.text, found, tokens.slots, card.names)
        answers.append([{"start": s.start, "end": s.end, "label": s.label} for s in spans])
    return {"answers": answers, "seconds": seconds, "peak": common.peak_memory_mb()}


@measure(
    "--corpora vietbioner cmedqaner ncbi-1500 --methods lora full --outputs head text --base '' "
    "--limit 0 --test 0 --epochs 0.0 --seeds 1 --folds 0",
    quick="--limit 40 --test 8 --epochs 1",
    corpora=(*CORPORA, "pubmedqa", "huatuo-general", "huatuo-liver"),
)
def tune(given: Namespace) -> None:
    """Corpora with a bundled model as it is and tuned by each method.

    Entities (--outputs head: the encoder tags; text: the causal model writes JSON), PubMedQA and
    the questions of Huatuo (the causal model), on held-out parts, 95 % intervals, paired with the
    base. --limit, --test: so many records (0: all). --epochs 0: a recipe that leaves every setting
    out, else so many passes over all of train, the last model kept. --folds: seed k: block k.
    """
    found: list[dict[str, Any]] = []
    columns = "train | n | scores | to base | unreadable | repaired | seconds"
    table = Table(f"corpus | system | output | seed | {columns}")
    with common.folder() as work:
        for corpus in given.corpora:
            for output in given.outputs if corpus in CORPORA else ["text"]:
                base = common.base_of(given.base or (TINY if output == "head" else TINY_LM))
                for seed in range(given.seeds):
                    data, card, _ = source(corpus, work / corpus, given.limit, seed, given.folds)
                    for number, method in enumerate(given.methods):
                        stage: dict[str, Any] = {"method": {"kind": method}}
                        stage |= {"epochs": given.epochs, "stop": None} if given.epochs else {}
                        whole = data if given.epochs else common.with_stop_part(data)
                        more = {"baselines": ["base"], "limit": given.test or None}
                        name = f"{corpus}-{output}-{method}-{seed}"
                        value = common.recipe(
                            name, base.path, whole, card, stage, seed=seed, **more
                        )
                        value["tasks"][0]["output"] = output
                        begun = time.perf_counter()
                        _, facts = common.finish(value, work, given.threads)
                        one = {"run": name, "in_all": time.perf_counter() - begun, **told(facts)}
                        found.append(one)
                        start = f"{corpus} | {{}} | {output} | {seed}"
                        for report in facts.reports[1 if number else 0 :]:
                            lines(table, start, method, report, facts)
    common.report(given, table, measurements=found)


def source(corpus: str, work: Path, limit: int, seed: int, folds: int = 0) -> Any:
    """The settings that read a corpus, its card, and the training records: so many, drawn."""
    if corpus.startswith("huatuo"):
        data = {**parts_of(corpus.removeprefix("huatuo-"), work), "limit": limit or None}
        return data, "qa", None
    if corpus == "pubmedqa":
        path = common.shared_data() / "en/pubmedqa/ori_pqal_train500.json"
        items = json.loads(path.read_text("utf-8"))
        kept = [pmid for pmid in items if common.tenth(pmid) < 8]
        kept = Random(seed).sample(kept, min(limit or len(kept), len(kept)))
        parts = {"train": kept, "test": [pmid for pmid in items if common.tenth(pmid) == 9]}
        rows = {part: {pmid: items[pmid] for pmid in pmids} for part, pmids in parts.items()}
        how = {"format": "pubmedqa", "profile": "public", "lang": "en", "stop": 0}
        return {**how, **common.write_json_parts(work, rows)}, "pubmedqa", rows["train"]
    train, test = common.corpus(corpus)
    if folds:  # sentences of a document stand together
        first, behind = (len(train) * at // folds for at in (seed, seed + 1))
        train, test = train[:first] + train[behind:], train[first:behind]
    train = Random(seed).sample(train, min(limit, len(train))) if limit else train
    lang = CORPORA[corpus]["lang"]
    return common.write_parts(work, lang, train=train, test=test), "ner", train


def lines(table: Table, start: str, method: str, report: Report, facts: RunFacts) -> None:
    """The table's line of a system."""
    tuned = report.system.name == "tuned"
    metrics = [m for m in METRICS if any(score.metric == m for score in report.scores)]
    scores = [f"{metric} {shown(report, metric)}" for metric in metrics]
    pairs = [test for test in report.comparisons if test.metric in metrics] if tuned else []
    gains = [f"{t.metric} {interval(t.difference, t.low, t.high, '+.3f')}" for t in pairs]
    table.add(
        f"{start.format(method if tuned else 'base')} | {facts.data[0].parts['train'].notes} | "
        f"{report.n} | {'; '.join(scores)} | {'; '.join(gains) or '-'} | "
        f"{report.failures / report.n:.1%} | {report.repaired / report.n:.1%} | "
        f"{f'{facts.stages[0].seconds:.0f}' if tuned else '-'}"
    )


def told(facts: RunFacts) -> dict[str, Any]:
    """What a finished run says, without texts."""
    scores = {f"{one.task}, {one.system.name}": [*map(asdict, one.scores)] for one in facts.reports}
    tests = [asdict(test) for one in facts.reports for test in one.comparisons]
    keys = ("name", "seconds", "settings", "trainable", "best_epoch", "stopped")
    stages = [{key: getattr(one, key) for key in keys} for one in facts.stages]
    return {"scores": scores, "tests": tests, "stages": stages}


@measure(
    "--corpora vietbioner cmedqaner ncbi pubmedqa --limit 500 --test 150 --epochs 6.0 "
    "--lm-epochs 1.0 --seed 7 --keep '' --plots",
    quick="--limit 100 --test 8 --epochs 1 --lm-epochs 1",
    corpora=(*ENTITIES, "pubmedqa"),
)
def compare(given: Namespace) -> None:
    """Base, LoRA, full tuning and a stand-in for an API: scores, paired tests, what each takes.

    Entities with bundled:tiny-encoder (strict span F1), PubMedQA with bundled:tiny-lm (accuracy):
    --limit training records drawn by the seed, at most --test held-out records; two runs and a
    comparison, by residency.run and residency.compare, a result file for each corpus. The API is a
    dictionary on loopback built from the same training records (_stand_in.py): it shows the way of
    asking, and stands for no product. --plots copies the charts of scores to docs/images/.
    """
    from _stand_in import marker, neighbour, served

    columns = (
        "unreadable | against base (paired) | p (Holm) | trained parameters | training seconds"
    )
    with common.folder(given.keep) as work:
        for corpus in given.corpora:
            marks, here = corpus in ENTITIES, work / corpus
            data, card, train = source(corpus, here, given.limit, given.seed)
            base, answer = (TINY, marker) if marks else (TINY_LM, neighbour)
            used = {"epochs": given.epochs if marks else given.lm_epochs, "stop": None}
            folders, more = {}, {"seed": given.seed, "limit": given.test}
            for kind in ("lora", "full"):
                stage = {"method": {"kind": kind}, **used}
                value = common.recipe(kind, base, data, card, stage, **more)
                folders[str(common.finish(value, here, given.threads)[0])] = kind
            with served(answer(train)) as url:
                api = f"evaluate.apis.stand-in={{url: '{url}', model: dictionary, budget: 5000}}"
                call = (compared, here / "runs", [api], *folders, "base", "api:stand-in")
                folder = Path(common.apart(*call, threads=given.threads))
            for path in (folder / "plots").glob("scores-*.svg") if given.plots else ():
                shutil.copyfile(path, common.ROOT / f"docs/images/compare-{corpus}.svg")
            facts, found = common.read_json(folder / "facts.json", RunFacts), []
            names = {Path(path).name: kind for path, kind in folders.items()}
            tests = facts.reports[-1].comparisons
            table = Table(
                f"system | n | {tests[0].metric} | {columns} | training MB | ms per 100 tokens"
            )
            for one in facts.reports:
                cost = next(cost for cost in facts.costs if cost.system == one.system.name)
                name, paired = names.get(one.system.name, one.system.name), "- | -"
                for test in tests:
                    if (test.a, test.b) == ("base", one.system.name):
                        ends = interval(test.difference, test.low, test.high, "+.3f")
                        paired = f"{ends} | {test.p_corrected or test.p:.4f}"
                table.add(
                    f"{name} | {one.n} | {shown(one, tests[0].metric)} | "
                    f"{one.failures / one.n:.1%} | {paired} | {cost.trainable:,} | "
                    f"{cost.train_seconds:.0f} | {cost.train_memory_mb:.0f} | "
                    f"{cost.ms_per_100_tokens or 0:.1f}"
                )
                found.append({"system": name, "scores": [*map(asdict, one.scores)], **asdict(cost)})
            common.report(given, table, f"-{corpus}", systems=found, tests=[*map(asdict, tests)])


def compared(runs: str, overrides: list[str], *systems: str) -> str:
    """One comparison in this process; its folder."""
    import residency

    return str(residency.compare(systems, overrides, runs)[1])


def parts_of(name: str, work: Path, turns: int = 0) -> dict[str, Any]:
    """A Huatuo file in three parts; the settings that read them. ``turns``: its dialogues with so
    many, behind short questions of the same part of the general file."""
    parts = halves(name)
    how = {"format": "alpaca", "lang": "zh", "origin": "model:gpt-3.5", "profile": "public"}
    how |= {"packed": {}, "names": {"id": ""}} if name == "liver" else {}
    for part, questions in halves("general").items() if turns else ():
        short = cycle(q for q in questions if len(q["instruction"] + q["output"]) <= 60)
        parts[part] = [dialogue(row, short, turns) for row in parts[part]]
    return {**how, **common.write_json_parts(work / f"{name}{turns or ''}", parts)}


def halves(name: str) -> dict[str, list[dict[str, Any]]]:
    """The records of a Huatuo file by part, by the hash of the instruction."""
    parts: dict[str, list[dict[str, Any]]] = {"train": [], "dev": [], "test": []}
    for record in common.huatuo(name):
        number = common.tenth(record["instruction"])
        parts["test" if number == 9 else "dev" if number == 8 else "train"].append(record)
    return parts


def dialogue(row: dict[str, Any], questions: Iterator[Any], turns: int) -> dict[str, Any]:
    """The first turns of a packed dialogue, behind as many questions as it has too few."""
    said = [*map(str.strip, re.split("<user>:|<bot>:", row["instruction"])[1:]), row["output"]]
    talk = list(zip(said[::2], said[1::2], strict=True))[:turns]
    more = [(q["instruction"], q["output"]) for q in islice(questions, turns - len(talk))]
    *history, (question, answer) = [*more, *talk]
    return {"instruction": question, "output": answer, "history": history}


@measure(
    "--steps 500 --test 90 --turns 1 10 --roads two-stage lora full --runs ''",
    quick="--steps 2 --test 4 --turns 10",
)
def stages(given: Namespace) -> None:
    """P-Tuning v2 on general questions, then Freeze on one department's, beside one stage.

    Huatuo's general file, then its liver cancer file as dialogues of --turns questions and answers
    (one: the first of a record; more: behind short general questions of the same part where a
    record has fewer), on the bundled causal model: loss and ROUGE-L on held-out parts of both, and
    every paired difference, for the base, stage 1, stage 2, and LoRA and full tuning that learn the
    liver file alone in as many steps as both stages together. A step reads 4 single questions or
    one dialogue. Rates are the defaults. --runs FOLDER keeps the runs and goes on there.
    """
    files = ("general", "liver")
    columns = " | ".join(f"{name}: {metric}" for name in files for metric in ("loss", "ROUGE-L"))
    table, pairs = Table(f"turns | system | {columns}"), Table(f"turns | difference | {columns}")
    found: list[dict[str, Any]] = []
    with common.folder(given.runs) as work:
        for turns in given.turns:
            data = {"general": {**parts_of("general", work), "limit": 4 * given.steps}}
            data["liver"], names = parts_of("liver", work, turns), {"base": "base"}
            task = {"card": "qa", "generate": {"max_tokens": 64}}
            for road in given.roads:
                steps = road_of(road, given.steps, max(1, 4 // turns))
                value = common.recipe(f"{road}-{turns}", TINY_LM, {}, "qa", *steps, limit=1)
                value |= {"data": data, "tasks": [{**task, "name": n, "data": n} for n in files]}
                folder, facts = common.finish(value, work, given.threads)
                found.append({"turns": turns, "road": road, **told(facts)})
                names[str(folder)] = "stage 2" if road == "two-stage" else road
                if road == "two-stage":
                    names[str(folder / "train/1-prefix")] = "stage 1"
            rows: dict[tuple[Table, str], list[str]] = {}
            for asked in files:
                ask = [f"tasks[{number}].data={asked}" for number in (0, 1)]
                call = (compared, work / "runs", [*ask, f"evaluate.limit={given.test}"], *names)
                folder = Path(common.apart(*call, threads=given.threads))
                facts = common.read_json(folder / "facts.json", RunFacts)
                found.append({"turns": turns, "asked": asked, **told(facts)})
                called = {Path(path).name: name for path, name in names.items()}
                for one in facts.reports:
                    cells = rows.setdefault((table, called[one.system.name]), [])
                    cells += [shown(one, "loss"), shown(one, "rouge_l")]
                for test in sorted(facts.reports[-1].comparisons, key=lambda test: test.metric):
                    cells = rows.setdefault((pairs, f"{called[test.b]} - {called[test.a]}"), [])
                    cells.append(interval(test.difference, test.low, test.high, "+.3f"))
            for (to, name), cells in rows.items():
                to.add(" | ".join([str(turns), name, *cells]))
    common.report(given, table, references="model-written", measurements=found)
    common.report(given, pairs, "-pairs")


def road_of(name: str, steps: int, rows: int) -> list[dict[str, Any]]:
    """The stages of a road; all roads have as many steps in all. A step on the liver file reads so
    many rows."""
    every = {"stop": None, "steps": steps, "batch": rows}
    if name != "two-stage":
        alone = {"name": name, "tasks": ["liver"], "method": {"kind": name}}
        return [{**every, **alone, "steps": 2 * steps}]
    prefix = {"tasks": ["general"], "method": {"kind": "prefix", "length": 32}, "batch": 4}
    freeze = {"tasks": ["liver"], "method": {"kind": "freeze", "last": 2}}
    return [{**every, **prefix}, {**every, **freeze}]


INVENTED = {
    "vietbioner": {"symptom": "Symptom_and_Disease", "diagnosis": "Symptom_and_Disease"}
    | {"test": "DiagnosticProcedure", "time": "DateTime"},
    "cmedqaner": {"symptom": "symptom", "diagnosis": "disease", "drug": "drug", "test": "test"}
    | {"procedure": "treatment", "time": "time"},
    "ncbi": {"diagnosis": "Disease", "history": "Disease", "finding": "Disease"},
}
"""A corpus' names for the labels of synthetic notes."""


@measure(
    "--corpora vietbioner cmedqaner ncbi --seeds 3 --real 100 --rows 50 200 --cases '' --crf",
    quick="--corpora vietbioner --seeds 1 --rows 50 --crf",
    corpora=ENTITIES,
)
def helps(given: Namespace) -> None:
    """Entities learned from --real records, with synthetic notes beside them and without.

    Notes of the house's generator and, of English, --cases (what residency graph cases wrote), so
    many, under the corpus' labels; by the defaults on the bundled encoder, or a CRF alone (--crf).
    Strict F1 on the authors' development part, paired with the records alone, seed by seed.
    """
    table = Table("corpus | seed | beside the records | F1 | less the records alone")
    with common.folder() as work:
        for corpus, seed in [(name, n) for name in given.corpora for n in range(given.seeds)]:
            train, test = common.corpus(corpus)
            lang, most = CORPORA[corpus]["lang"], max(given.rows)
            kinds = {"invented": list(common.invented(most, 90_000 + 1_000 * seed, (lang,)))}
            if given.cases and lang == "en":
                how = {"format": "jsonl", "train": given.cases, "profile": "synthetic"}
                kinds["cases"] = Random(seed).sample(common.notes(how, Path.cwd())[0], most)
            real, folders = Random(seed).sample(train, given.real), {}
            for kind, rows in [("", 0), *((kind, rows) for kind in kinds for rows in given.rows)]:
                more = [called(note, INVENTED[corpus]) for note in kinds.get(kind, [])[:rows]]
                here = work / f"{corpus}-{seed}-{kind}{rows}"
                data = common.write_parts(here, lang, train=[*real, *more], test=test)
                stages = [{"method": {"kind": "crf"}}] if given.crf else []
                value = common.recipe(here.name, TINY, data, "ner", *stages, seed=seed)
                found = common.finish(value, work, given.threads)[0]
                folders[str(found)] = f"{rows} {kind}" if kind else "nothing"
            told = Path(common.apart(compared, work / "runs", [], *folders, threads=given.threads))
            reports = common.read_json(told / "facts.json", RunFacts).reports
            alone = Path(next(iter(folders))).name
            tests = {test.b: test for test in reports[-1].comparisons if test.a == alone}
            for path, name in folders.items():
                one = next(one for one in reports if one.system.name == Path(path).name)
                test = tests.get(one.system.name)
                gain = interval(test.difference, test.low, test.high, "+.3f") if test else ""
                table.add(f"{corpus} | {seed} | {name} | {shown(one, 'span_f1')} | {gain}")
    common.report(given, table, "-crf" if given.crf else "")


def called(note: Note, names: dict[str, str]) -> Note:
    """The note with its labels called otherwise; others left out."""
    kept = (replace(s, label=names[s.label]) for s in note.spans if s.label in names)
    return replace(note, spans=tuple(kept))


if __name__ == "__main__":
    SUBJECT.main()
