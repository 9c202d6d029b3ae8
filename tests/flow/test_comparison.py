"""Systems beside each other on the same items: runs, the base, and a server that stands in for
somebody else's model."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from conftest import CLI, SECRET, recipe_of, write_recipe
from residency.evals.words import words_of
from residency.recipe import Recipe
from residency.workflows.compare import compare

pytestmark = pytest.mark.training


class StandIn(ThreadingHTTPServer):
    """Answers every note with nothing; fails from a given request on."""

    asked = 0
    fails_from = 10**9


class Handler(BaseHTTPRequestHandler):
    server: StandIn

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked += 1
        failing = self.server.asked >= self.server.fails_from
        body = json.dumps(
            {"choices": [{"message": {"content": "[]"}}], "usage": {"completion_tokens": 1}}
        ).encode()
        self.send_response(400 if failing else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def second(finished: tuple[Path, Path], tiny: Path) -> Path:
    """A second run on the same data, of all weights."""
    import residency

    stages = [{"method": {"kind": "full"}, "steps": 4, "batch": 8}]
    recipe = Recipe.load(write_recipe(finished[0], recipe_of(tiny, name="other", stages=stages)))
    done = residency.run(recipe, finished[0] / "runs").folder
    write_recipe(finished[0], recipe_of(tiny))
    return done


def api(server: StandIn, profiles: str = "[pseudonymised]") -> str:
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    return (
        f"evaluate.apis.stand={{url: '{url}', model: m, profiles: {profiles}, retries: 0, "
        "concurrency: 1}"
    )


def test_four_systems_one_table_every_pair_tested(
    finished: tuple[Path, Path], second: Path, server: StandIn, tmp_path: Path
) -> None:
    systems = [str(finished[1]), str(second), "base", "api:stand"]
    facts, folder = compare(systems, [api(server)], tmp_path)
    assert [report.system.name for report in facts.reports] == [
        "base",
        "api:stand",
        finished[1].name,
        second.name,
    ]
    assert len({report.data_digest for report in facts.reports}) == 1, "the same items for all"
    tests = [test for report in facts.reports for test in report.comparisons]
    assert len(tests) == 6 and all((test.p_corrected or 0) >= test.p for test in tests)
    api_report = facts.reports[1]
    assert (
        api_report.system.remote
        and {s.metric: s.value for s in api_report.scores}["span_recall"] == 0.0
    )
    costs = {cost.system: cost for cost in facts.costs}
    assert costs[finished[1].name].trainable > 0 and costs[finished[1].name].train_memory_mb > 0
    assert costs["base"].trainable == 0 and costs["base"].ms_per_100_tokens
    page = (folder / "report.html").read_text("utf-8")
    title = words_of("vi")("What each system takes")
    assert title in page and "api:stand" in page and SECRET not in page
    assert words_of("vi")("taken after two answers to warm up, but for those of a server") in page
    before = server.asked
    compare(systems, [api(server)], tmp_path)
    assert server.asked == before, "what is done is not done again"


def test_a_server_that_fails_half_way_loses_nothing(
    finished: tuple[Path, Path], server: StandIn, tmp_path: Path, cli: CLI
) -> None:
    arguments = ("compare", finished[1], "api:stand", api(server), "--runs", tmp_path)
    server.fails_from = 4
    failed = cli(*arguments, check=1)
    assert "the server refused (status 400)" in failed.stderr and failed.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*/compare")), "nothing half-made"
    server.fails_from, before = 10**9, server.asked
    done = cli(*arguments, check=0)
    total = len(
        next(tmp_path.glob("*/compare/api-stand.predictions.jsonl")).read_text("utf-8").splitlines()
    )
    assert server.asked - before == total - 3, "three answers had been kept"
    assert "api:stand" in done.stdout and SECRET not in done.stdout + done.stderr


def test_what_may_not_leave_is_refused_before_anything_is_written(
    finished: tuple[Path, Path], server: StandIn, tmp_path: Path, cli: CLI
) -> None:
    arguments = (finished[1], "api:stand", api(server, "[public, synthetic]"), "--runs", tmp_path)
    refused = cli("compare", *arguments, check=2)
    assert "notes of profile pseudonymised may not leave this machine" in refused.stderr
    assert server.asked == 0 and not list(tmp_path.glob("compare-*"))


def test_bad_comparisons_are_one_sentence(
    finished: tuple[Path, Path], tmp_path: Path, cli: CLI
) -> None:
    for arguments, said in (
        (("base", "api:x"), "name at least one run's folder"),
        ((finished[1],), "name at least two systems"),
        ((finished[1], f"{finished[1]}/../{finished[1].name}"), "are one run"),
        ((finished[1], "api:x"), "api:x: is no entry of evaluate.apis (none is configured)"),
        ((finished[1], tmp_path / "no-run"), "no-run"),
    ):
        done = cli("compare", *arguments, "--runs", tmp_path / "runs", check=1)
        assert said in done.stderr and done.stderr.count("\n") == 1
    copy = tmp_path / "changed"
    shutil.copytree(finished[1], copy)
    artefact = next(copy.glob("train/*/artefact.json"))
    artefact.write_text(artefact.read_text("utf-8").replace('"drug"', '"remedy"'), "utf-8")
    done = cli("compare", finished[1], copy, "--runs", tmp_path / "runs", check=1)
    assert "compare runs of one task" in done.stderr
