"""What tuning teaches on real corpora: scores beside plain scripts, a base, other starts and stages.

Recipes leave to the defaults what is not said; what is measured decides nothing.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from argparse import Namespace
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import mean, median
from typing import Any

import msgspec
from msgspec.structs import asdict

import _common as common
import _plain
from _common import CORPORA, TINY, TINY_LM, Subject, Table, interval, say
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
    "--runs 5 --seeds 3 --rate 2e-3 --accumulation 4 --epochs 6.0 --systems ours plain plain-tuned",
    quick="--runs 2 --seeds 2",
    systems=("ours", "plain", "plain-tuned"),
)
def defaults(given: Namespace) -> None:
    """500 sentences of NCBI disease, a 22M encoder: our defaults beside the plain script, F1, time.

      ours         a recipe that says nothing but the data and the base
      plain        _plain.method as a published account has it (LoRA of rank 8 on attention only,
                   rate 2e-4, batch 4 x 8, 6 epochs: for models of billions of parameters)
      plain-tuned  the same with a hand-tuned rate and batch (--rate, --accumulation, --epochs)

    Measured on the authors' development part. Round k uses seed k modulo --seeds. Seconds are those
    of the training loop; "in all" is the whole process with imports, reading and answering.
    """
    train, devel = common.corpus("ncbi")
    train = common.shuffled(train)[: 40 if given.quick else 500]
    devel = devel[: 40 if given.quick else None]
    rounds: list[dict[str, Any]] = [{} for _ in range(given.runs)]
    with common.folder() as work:
        data = common.write_parts(work, "en", train=train, test=devel)
        for turn, system in common.in_turn(given.systems, given.runs):
            found = learned(system, turn, given, work, data, train, devel)
            rounds[turn] |= {"seed": turn % given.seeds, system: found}
            say(f"round {turn + 1} {system}: F1 {found['f1']:.3f}, {found['seconds']:.1f} s")
    columns = "mean F1 | seconds (median) | in all | ours / it, time | ours - it, F1"
    table = Table(f"system | F1 by seed | {columns}")
    for system in given.systems:
        by_seed = {one["seed"]: one[system]["f1"] for one in reversed(rounds)}
        own, its = [one.get("ours", {}) for one in rounds], [one[system] for one in rounds]
        versus = ""
        if system != "ours" and "ours" in given.systems:
            gain = median(a["f1"] - b["f1"] for a, b in zip(own, its, strict=True))
            versus = f"{common.spread(common.ratios(own, its, 'seconds'), '.2f')} | {gain:+.3f}"
        table.add(
            f"{system} | {', '.join(f'{by_seed[seed]:.3f}' for seed in sorted(by_seed))} | "
            f"{mean(by_seed.values()):.3f} | {median(one['seconds'] for one in its):.1f} | "
            f"{median(one['all'] for one in its):.1f} | {versus or ' | '}"
        )
    suffix = "-plain" if given.systems == ["ours", "plain"] else ""
    common.report(given, table, suffix, rounds=rounds, test=len(devel), train=len(train))


PUBLISHED = {"r": 8, "lora_alpha": 16, "lora_dropout": 0.05, "modules_to_save": ["classifier"]}
PUBLISHED |= {"target_modules": ["query", "key", "value", "attention.output.dense"]}


def learned(
    system: str, turn: int, given: Namespace, work: Path, data: Any, train: Any, devel: Any
) -> dict[str, Any]:
    """One system once: F1 and seconds."""
    seed, begun = turn % given.seeds, time.perf_counter()
    if system == "ours":
        quick = [{"epochs": 1}] if given.quick else []
        name, base = f"ncbi500-{turn}", common.minilm()
        whole = common.with_stop_part(data)
        value = common.recipe(name, base, whole, "ner", *quick, seed=seed, bootstrap=0)
        folder, facts = common.finish(value, work, given.threads)
        stage = facts.stages[0]
        found = {"seconds": stage.seconds, "used": stage.settings, "stopped": stage.stopped}
        lines = (folder / "eval/ner/tuned.predictions.jsonl").read_text("utf-8").splitlines()
        rows = {row["id"]: row.get("answer") or {} for row in map(json.loads, lines)}
        answers = [[Span(**span) for span in rows[note.id].get("spans", [])] for note in devel]
    else:
        hand = (given.rate, given.accumulation, given.epochs)
        rate, count, epochs = hand if system == "plain-tuned" else (2e-4, 8, 6)
        arguments = {"learning_rate": rate, "gradient_accumulation_steps": count, "seed": seed}
        arguments |= {"num_train_epochs": 1 if given.quick else epochs, "weight_decay": 0.0}
        arguments |= {"per_device_train_batch_size": 4}
        settings = {"method": "lora", "lora": PUBLISHED, "arguments": arguments}
        (work / "notes.json").write_bytes(msgspec.json.encode([train, devel]))
        found = common.apart(plainly, work / "notes.json", settings, threads=given.threads)
        answers = [[Span(**span) for span in spans] for spans in found.pop("answers")]
    f1 = common.strict_f1(devel, answers)
    return {**found, "all": time.perf_counter() - begun, "f1": f1}


def plainly(path: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The plain script on our tokens in this process; its tags read as ours are."""
    from residency.models.artefact import tokeniser
    from residency.tasks.bio import decode
    from residency.tasks.card import load_card
    from residency.tasks.examples import examples, fixed
    from residency.tasks.heads import TOKENS

    train, devel = msgspec.json.decode(Path(path).read_bytes(), type=list[list[Note]])
    base, card = common.base_of(common.minilm()), fixed(load_card("ner"), train, "data.ncbi")
    each = [common.items(base, card, examples(part, card)).items for part in (train, devel)]
    rows, held = ([common.as_tokens(item) for item in part] for part in each)
    data = {"rows": rows, "held": held, "labels": len(TOKENS.outputs(card))}
    result, read = _plain.method(data, base.path, settings), tokeniser(base)
    answers = []
    for note, tags in zip(devel, result.pop("tags"), strict=True):
        tokens = read([note.text])[0]
        found = [tags[len(read.prefix) + first] for first in tokens.firsts]
        spans = decode(note.text, found, tokens.slots, card.names)
        answers.append([{"start": s.start, "end": s.end, "label": s.label} for s in spans])
    return {**result, "answers": answers}


@measure(
    "--corpora vietbioner cmedqaner ncbi-1500 --methods lora full --starts pretrained scratch "
    "--outputs head text --base '' --limit 0 --test 0 --epochs 0.0 --seeds 1 --folds 0",
    quick="--limit 40 --test 8 --epochs 1 --starts pretrained",
    corpora=(*CORPORA, "pubmedqa", "huatuo-general", "huatuo-liver"),
)
def tune(given: Namespace) -> None:
    """Corpora with a bundled model as it is and tuned by each method, pre-trained or from scratch.

    Entities (--outputs head: the encoder tags; text: the causal model writes JSON), PubMedQA and
    the questions of Huatuo (the causal model), on held-out parts, 95 % intervals, paired with the
    base. --limit, --test: so many records (0: all). --epochs 0: a recipe that leaves every setting
    out, else so many passes over all of train, the last model kept. From scratch: random weights of
    the same configuration, another draw for each seed. --folds: seed k is asked block k of train.
    """
    found: list[dict[str, Any]] = []
    table = Table(
        "corpus | system | output | start | seed | train | n | scores | to base | unreadable | "
        "repaired | seconds"
    )
    with common.folder() as work:
        for corpus in given.corpora:
            for output in given.outputs if corpus in CORPORA else ["text"]:
                base = common.base_of(given.base or (TINY if output == "head" else TINY_LM))
                for begin, seed in [(s, n) for s in given.starts for n in range(given.seeds)]:
                    data, card, _ = source(corpus, work / corpus, given.limit, seed, given.folds)
                    path = base.path if begin == "pretrained" else scratch(base.path, work, seed)
                    for number, method in enumerate(given.methods):
                        stage: dict[str, Any] = {"method": {"kind": method}}
                        stage |= {"epochs": given.epochs, "stop": None} if given.epochs else {}
                        whole = data if given.epochs else common.with_stop_part(data)
                        more = {"baselines": ["base"], "limit": given.test or None}
                        name = f"{corpus}-{output}-{method}-{begin}-{seed}"
                        value = common.recipe(name, path, whole, card, stage, seed=seed, **more)
                        value["tasks"][0]["output"] = output
                        begun = time.perf_counter()
                        _, facts = common.finish(value, work, given.threads)
                        one = {"run": name, "in_all": time.perf_counter() - begun, **told(facts)}
                        found.append(one)
                        start = f"{corpus} | {{}} | {output} | {begin} | {seed}"
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


def scratch(base: str, work: Path, seed: int) -> str:
    """A folder with the base's configuration and tokenizer, and fresh weights."""
    import torch
    import transformers

    folder = work / f"scratch-{seed}"
    if not folder.exists():
        transformers.utils.logging.disable_progress_bar()
        torch.manual_seed(seed)
        model = transformers.AutoModel.from_config(transformers.AutoConfig.from_pretrained(base))
        model.save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return str(folder)


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


if __name__ == "__main__":
    SUBJECT.main()
