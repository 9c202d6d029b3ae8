"""Base, LoRA, full tuning and a stand-in for an API on four public corpora: scores, paired tests,
what each takes.

VietBioNER, cMedQANER and NCBI disease (bundled:tiny-encoder; strict span F1) and PubMedQA
(bundled:tiny-lm; yes, no, maybe; accuracy): --limit training records drawn by the seed, at most
--test records of the authors' development part, or the held-out part where they give none. Each is
two runs and one comparison, by residency.run and residency.compare. The API is a dictionary on
loopback built from the same training records (_stand_in.py): it shows the way of asking, and stands
for no product.

Corpora that are not named keep their lines; each measurement carries its date and settings.
--keep FOLDER leaves runs and reports there; --plots copies the charts of scores to docs/images/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from _common import RESULTS, ROOT, TINY, child, parser, report, run, say, shared_data
from _stand_in import Answerer, marker, neighbour, served
from corpora import CORPORA
from residency.core.part import parse
from residency.core.run_folder import now
from residency.core.types import RunFacts
from residency.corpus.load import Data, load
from residency.corpus.write import write_jsonl

ENTITIES = {"vietbioner": "vi", "cmedqaner": "zh", "ncbi": "en"}
METHODS = ("lora", "full")


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--corpora", nargs="+", choices=[*ENTITIES, "pubmedqa"], default=[*ENTITIES, "pubmedqa"]
    )
    options.add_argument("--limit", type=int, default=500, help="training records (default 500)")
    options.add_argument("--test", type=int, default=150, help="test records (default 150)")
    options.add_argument("--epochs", type=float, default=6, help="with the encoder (default 6)")
    options.add_argument(
        "--lm-epochs", type=float, default=1, help="with the model that writes (default 1)"
    )
    options.add_argument("--seed", type=int, default=7)
    options.add_argument(
        "--keep", type=Path, help="folder for runs and reports (default: a temporary one)"
    )
    options.add_argument(
        "--plots", action="store_true", help="copy the charts of scores to docs/images/"
    )
    options.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.child:
        print(
            json.dumps(trained(*given.child) if len(given.child) == 2 else compared(*given.child))
        )
        return
    if given.quick:
        given.limit, given.test, given.epochs, given.lm_epochs = 100, 8, 1, 1
    with tempfile.TemporaryDirectory() as folder:
        measure(given, given.keep or Path(folder))


def measure(given: argparse.Namespace, work: Path) -> None:
    """Every corpus, then one table."""
    found: dict[str, Any] = {}
    for corpus in given.corpora:
        (work / corpus).mkdir(parents=True, exist_ok=True)
        data, answer = (entities if corpus in ENTITIES else questions)(corpus, work / corpus, given)
        runs = work / corpus / "runs"
        made = {}
        for method in METHODS:
            path = work / corpus / f"{method}.yaml"  # JSON is YAML
            path.write_text(json.dumps(recipe(corpus, data, method, given)), "utf-8")
            made[method], _ = child([__file__, "--child", path, runs], given.threads)
            say(f"{corpus} {method}: trained")
        with served(answer) as url:
            api = f"evaluate.apis.stand-in={{url: '{url}', model: dictionary, budget: 5000}}"
            folders = [made[method]["folder"] for method in METHODS]
            found[corpus], _ = child([__file__, "--child", api, runs, *folders], given.threads)
        folder = Path(found[corpus].pop("folder"))
        if given.plots and not given.quick:
            keep_plot(corpus, folder)
        epochs = given.epochs if corpus in ENTITIES else given.lm_epochs
        found[corpus] |= {"date": now(), "train": given.limit, "epochs": epochs, "seed": given.seed}
        say(f"{corpus}: compared")
        write(given, found)


def write(given: argparse.Namespace, found: dict[str, Any]) -> None:
    """The table of what is measured so far; corpora that were not measured now keep their lines."""
    earlier = RESULTS / "compare_corpora.json"
    if earlier.is_file() and not given.quick:
        found = json.loads(earlier.read_text("utf-8"))["measurements"] | found
    rows = [
        line
        for corpus in (*ENTITIES, "pubmedqa")
        if corpus in found
        for line in lines(corpus, found[corpus])
    ]
    columns = (
        "corpus",
        "system",
        "n",
        "metric",
        "value",
        "unreadable",
        "against base (paired)",
        "p (Holm)",
        "trained parameters",
        "training seconds",
        "training MB",
        "ms per 100 tokens",
    )
    settings = {name: value for name, value in vars(given).items() if name != "keep"}
    report("compare_corpora", argparse.Namespace(**settings), columns, rows, measurements=found)


def entities(corpus: str, work: Path, given: argparse.Namespace) -> tuple[dict[str, Any], Answerer]:
    """A corpus of entities as JSON lines, and a dictionary of its training records."""
    settings = {**CORPORA[corpus][1], "stop": 0, "profile": "public", "lang": ENTITIES[corpus]}
    notes = load(parse(Data, settings, corpus), corpus, shared_data(), 0)
    train = notes.part("train")
    train = Random(given.seed).sample(train, min(given.limit, len(train)))
    write_jsonl(train, work / "train.jsonl")
    write_jsonl(notes.part("test"), work / "test.jsonl")
    where = {part: str(work / f"{part}.jsonl") for part in ("train", "test")}
    return {"format": "jsonl", **where, "profile": "public", "lang": ENTITIES[corpus]}, marker(
        train
    )


def questions(_: str, work: Path, given: argparse.Namespace) -> tuple[dict[str, Any], Answerer]:
    """PubMedQA in the parts that the hash of the PMID gives, and the answers of its training
    questions."""
    items = json.loads((shared_data() / "en/pubmedqa/ori_pqal_train500.json").read_text("utf-8"))
    tenth = {pmid: int(hashlib.sha256(pmid.encode()).hexdigest(), 16) % 10 for pmid in items}
    kept = [pmid for pmid in items if tenth[pmid] < 8]
    kept = Random(given.seed).sample(kept, min(given.limit, len(kept)))
    parts = {"train": kept, "test": [pmid for pmid in items if tenth[pmid] == 9]}
    for part, pmids in parts.items():
        (work / f"{part}.json").write_text(
            json.dumps({pmid: items[pmid] for pmid in pmids}), "utf-8"
        )
    where = {part: str(work / f"{part}.json") for part in parts}
    decisions = {items[pmid]["QUESTION"].strip(): items[pmid]["final_decision"] for pmid in kept}
    return {"format": "pubmedqa", **where, "profile": "public", "lang": "en", "stop": 0}, neighbour(
        decisions
    )


def recipe(
    corpus: str, data: dict[str, Any], method: str, given: argparse.Namespace
) -> dict[str, Any]:
    """One run: a fixed number of epochs, the last model kept; nothing is chosen by looking at
    anything."""
    marks = corpus in ENTITIES
    return {
        "schema": 1,
        "name": method,
        "seed": given.seed,
        "base": TINY if marks else "bundled:tiny-lm",
        "data": {corpus: {**data, "stop": 0}},
        "tasks": [
            {
                "card": "ner" if marks else "pubmedqa",
                "data": corpus,
                "output": "head" if marks else "text",
            }
        ],
        "stages": [
            {
                "method": {"kind": method},
                "epochs": given.epochs if marks else given.lm_epochs,
                "stop": None,
            },
        ],
        "evaluate": {"limit": given.test, "baselines": []},
    }


def trained(path: str, runs: str) -> dict[str, Any]:
    """One run in this process; its folder."""
    import residency

    return {"folder": str(residency.run(residency.Recipe.load(path), runs).folder)}


def compared(api: str, runs: str, *folders: str) -> dict[str, Any]:
    """One comparison in this process; everything but the texts."""
    import residency

    facts, folder = residency.compare([*folders, "base", "api:stand-in"], [api], runs)
    return {"folder": str(folder), **told(facts, folders)}


def told(facts: RunFacts, folders: Sequence[str]) -> dict[str, Any]:
    """What a comparison says, without texts; systems by their method instead of their folder."""
    tests = facts.reports[-1].comparisons
    names = {Path(one).name: method for one, method in zip(folders, METHODS, strict=True)}

    def called(name: str) -> str:
        return names.get(name, name)

    systems = [
        {
            "system": called(one.system.name),
            "n": one.n,
            "groups": one.scores[0].groups,
            "unreadable": one.failures,
            "repaired": one.repaired,
            "scores": [full(score) for score in one.scores],
        }
        for one in facts.reports
    ]
    costs = [{**full(cost), "system": called(cost.system)} for cost in facts.costs]
    paired = [{**full(test), "a": called(test.a), "b": called(test.b)} for test in tests]
    return {"metric": tests[0].metric, "systems": systems, "costs": costs, "tests": paired}


def full(value: Any) -> dict[str, Any]:
    """A value with all its fields, defaults too."""
    import msgspec

    return dict(msgspec.structs.asdict(value))


def lines(corpus: str, found: dict[str, Any]) -> list[list[str]]:
    """The table's lines of one corpus: a system each."""
    made = []
    costs = {cost["system"]: cost for cost in found["costs"]}
    tests = {test["b"]: test for test in found["tests"] if test["a"] == "base"}
    for one in found["systems"]:
        score = next(score for score in one["scores"] if score["metric"] == found["metric"])
        cost, test = costs[one["system"]], tests.get(one["system"])
        speed = cost["ms_per_100_tokens"]
        made.append(
            [
                corpus,
                one["system"],
                str(one["n"]),
                found["metric"],
                f"{score['value']:.3f} [{score['low']:.3f}, {score['high']:.3f}]",
                f"{one['unreadable'] / one['n']:.1%}",
                f"{test['difference']:+.3f} [{test['low']:+.3f}, {test['high']:+.3f}]"
                if test
                else "-",
                f"{test['p_corrected'] or test['p']:.4f}" if test else "-",
                f"{cost['trainable']:,}" if cost["trainable"] else "-",
                f"{cost['train_seconds']:.0f}" if cost["train_seconds"] else "-",
                f"{cost['train_memory_mb']:.0f}" if cost["train_memory_mb"] else "-",
                "-" if speed is None else f"{speed:.1f}",
            ]
        )
    return made


def keep_plot(corpus: str, folder: Path) -> None:
    """The chart of scores for the docs: labels and numbers, no text of the corpus."""
    images = ROOT / "docs/images"
    images.mkdir(exist_ok=True)
    for path in (folder / "plots").glob("scores-*.svg"):
        shutil.copyfile(path, images / f"compare-{corpus}.svg")


if __name__ == "__main__":
    run(main)
