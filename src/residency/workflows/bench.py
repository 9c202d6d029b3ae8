"""How fast a run's model is, beside the same weights in plain transformers: latency, throughput,
memory.

Ours is what ``predict`` does: windows, batches, decoding, reading the answer back. Plain is what a
script of a few lines does: ``transformers.pipeline`` for a classifier, ``generate`` behind
the chat template for one that writes. Both take turns in one process, so that a machine that slows
down slows both; memory is taken of a process of its own for each.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

import msgspec

from residency.core.energy import EnergyMeter
from residency.core.errors import UserError
from residency.core.files import write_json
from residency.core.page import Page, Section, write_page
from residency.core.progress import Silent, Tracker
from residency.core.run_folder import hardware, now, packages
from residency.core.types import Example, Note, Value
from residency.models.base import silent
from residency.tasks.examples import question
from residency.workflows.evaluate import examples_of_run
from residency.workflows.finished import artefact_of

if TYPE_CHECKING:
    from residency.models.causal import CausalPredictor
    from residency.models.encoder import EncoderPredictor

Call = tuple[float, float | None]
"""Milliseconds of a call, and joules where the machine says them."""
WARM = 2
"""Answers before time is taken."""
FILLER = (
    "Bệnh nhân tỉnh, mạch 84 lần/phút. 患者神志清，无发热。 Lungs clear to auscultation, no edema. "
)
"""What texts are made of where a run has no test items."""


class Timing(Value, frozen=True):
    """One system at one batch size."""

    system: str
    batch: int
    p50_ms: float
    """Of answering a batch."""
    p95_ms: float
    tokens: int
    """Tokens of a batch, padding apart: read by a classifier, written by a generative model."""
    first_ms: float | None = None
    """To the first token, of a generative model."""
    joules: float | None = None
    """Of answering a batch, the mean: of the whole processor and the GPUs; None where the machine
    does not say."""

    @property
    def tokens_per_second(self) -> float:
        """At the median."""
        return 1000 * self.tokens / self.p50_ms if self.p50_ms else 0.0

    @property
    def ms_per_100(self) -> float:
        """Milliseconds per 100 tokens."""
        return 100 * self.p50_ms / self.tokens if self.tokens else 0.0

    @property
    def joules_per_100(self) -> str:
        """Joules per 100 tokens; a dash where the machine does not say."""
        known = self.joules is not None and self.tokens
        return f"{100 * (self.joules or 0.0) / self.tokens:.3g}" if known else "–"


class Speed(Value, frozen=True):
    """What was measured."""

    model: str
    base: str
    output: str
    length: int
    """Tokens of an input (a classifier), or of question and answer together."""
    times: int
    timings: tuple[Timing, ...]
    memory_mb: float
    """Most memory of a process that loads the model and answers once; of the GPU where there is
    one."""
    hardware: str
    packages: dict[str, str]
    created: str


def bench(
    run: Path | str,
    tokens: int = 1024,
    batches: Sequence[int] = (1, 4, 16),
    times: int = 10,
    tracker: Tracker | None = None,
) -> tuple[Speed, Path]:
    """Measure a run's model; returns the figures and the page that shows them, below the run's
    folder.

    ``tokens``: length of an input, or of question and answer together, or as many as the model's
    window holds. Raises ``UserError`` for a folder without a trained model, or sizes that mean
    nothing.
    """
    if tokens < 16 or times < 1 or not batches or min(batches) < 1:
        raise UserError(
            "bench: takes at least 16 tokens, one batch size of 1 or more, and one repetition."
        )
    tracker, folder = tracker or Silent(), Path(run)
    artefact = artefact_of(folder)
    tracker.start("loading the model")
    with silent():
        subject = _subject(artefact, folder, tokens)
    tracker.end(f"{subject.length} tokens")
    timings = []
    for batch in batches:
        tracker.start(f"batch {batch}", times)
        with silent():
            timings += subject.timed(batch, times, tracker.update)
        tracker.end(" ".join(f"{one.system} {one.p50_ms:.1f} ms" for one in timings[-2:]))
    tracker.start("memory")
    memory = _memory(folder, tokens)
    tracker.end()
    speed = Speed(
        model=folder.name,
        base=subject.predictor.info.base,
        output=subject.output,
        length=subject.length,
        times=times,
        timings=tuple(timings),
        memory_mb=memory,
        hardware=hardware(),
        packages=packages(),
        created=now(),
    )
    target = folder / "bench"
    write_json(target / "bench.json", speed)
    return speed, write_page(page(speed), target)


class TimedClassifier:
    """A model with a head: notes of a fixed length."""

    output = "head"
    verb, measured = "reads", "of an input"

    def __init__(self, predictor: EncoderPredictor, texts: str, tokens: int) -> None:
        from transformers import pipeline

        self.predictor = predictor
        self.length = min(tokens, predictor.tokeniser.room)
        text = _cut(texts, self.length, lambda text: len(predictor.tokeniser([text])[0].ids))
        self.example = Example(id="0", task="bench", input=text)
        self.plain = pipeline(
            predictor.head.pipeline,
            model=predictor.model,
            tokenizer=predictor.tokeniser.tokenizer,
            device=predictor.model.device,
        )

    def timed(self, batch: int, times: int, progress: Callable[[int], None]) -> list[Timing]:
        """Both systems in turn."""
        text = self.example.input
        examples = [msgspec.structs.replace(self.example, id=str(i)) for i in range(batch)]
        read = batch * len(self.predictor.tokeniser([text])[0].ids)
        ours, plain = _in_turn(
            lambda: list(self.predictor.predict(examples)),
            lambda: self.plain([text] * batch, batch_size=batch),
            times,
            progress,
        )
        both = {"residency": ours, "transformers": plain}
        return [_timing(name, batch, took, read) for name, took in both.items()]


class TimedGenerator:
    """A generative model: a question and an answer that fill a fixed length, the answer a quarter
    of it."""

    output = "text"
    verb, measured = "writes", "question and answer together"

    def __init__(self, predictor: CausalPredictor, texts: str, tokens: int) -> None:
        chat = predictor.chat
        self.length = min(tokens, chat.window)
        self.written = max(4, self.length // 4)
        most = self.length - self.written
        self.predictor = predictor
        predictor.generation = predictor.generation.model_copy(
            update={"max_tokens": self.written, "temperature": 0.0}
        )
        ask = msgspec.structs.replace
        self.example = Example(id="0", task="bench", input="")
        text = _cut(
            texts,
            most,
            lambda text: len(self._prompt(ask(self.example, input=text)) or [0] * (most + 1)),
        )
        self.example = question(Note(id="0", text=text, profile="synthetic"), predictor.card)
        predictor.full_length = True

    def _prompt(self, example: Example) -> list[int] | None:
        from residency.tasks.codec import conversation

        made = question(Note(id="0", text=example.input, profile="synthetic"), self.predictor.card)
        return self.predictor.chat.prompt(
            conversation(made, self.predictor.card), self.predictor.chat.window
        )[0]

    def timed(self, batch: int, times: int, progress: Callable[[int], None]) -> list[Timing]:
        """Both systems in turn; every answer has the same number of tokens, its end is not looked
        for."""
        examples = [msgspec.structs.replace(self.example, id=str(i)) for i in range(batch)]
        ours, plain = _in_turn(
            lambda: list(self.predictor.predict(examples)),
            lambda: self._plain(batch, self.written),
            times,
            progress,
        )
        first = _in_turn(self._first, lambda: self._plain(1, 1), times, lambda done: None)
        written = batch * self.written
        return [
            _timing(name, batch, took, written, first_token if batch == 1 else None)
            for name, took, first_token in (
                ("residency", ours, first[0]),
                ("transformers", plain, first[1]),
            )
        ]

    def _first(self) -> None:
        from residency.tasks.codec import conversation

        stream = self.predictor.stream(conversation(self.example, self.predictor.card))
        next(stream, None)
        stream.close()  # type: ignore[attr-defined]

    def _plain(self, batch: int, count: int) -> None:
        import torch

        prompt = self._prompt(self.example) or []
        model = self.predictor.model
        ids = torch.tensor([prompt] * batch, device=model.device)
        with torch.inference_mode():
            model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=self.predictor.chat.pad_id,
            )


def _subject(artefact: Path, folder: Path, tokens: int) -> TimedClassifier | TimedGenerator:
    from residency.models import predictors
    from residency.models.artefact import read

    predictors.kind_of(read(artefact)).check_able("bench", "bench")
    predictor: Any = predictors.trained(artefact)
    return timed_by(read(artefact).output)(predictor, _texts(folder), tokens)


def timed_by(output: str) -> type[TimedClassifier | TimedGenerator]:
    """What times a model that answers so."""
    # A record of a measurement holds the word, not the model, so the word is what is looked up.
    return {one.output: one for one in (TimedClassifier, TimedGenerator)}[output]


def _texts(folder: Path) -> str:
    """The run's own test items one behind the other, where its data is still there; it only has to
    be text of the kind."""
    from residency.core.errors import ResidencyError

    try:
        own = "\n".join(example.input for example in examples_of_run(folder, "test"))
    except ResidencyError:
        own = ""
    return own or FILLER


def _cut(text: str, most: int, count: Callable[[str], int]) -> str:
    """The longest beginning of at most ``most`` tokens of a text, repeated while it is short."""
    while count(text) < most:
        text += "\n" + text
    low, high = 1, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(text[:middle]) <= most else (low, middle - 1)
    return text[:low]


def _in_turn(
    a: Callable[[], object], b: Callable[[], object], times: int, progress: Callable[[int], None]
) -> tuple[list[Call], list[Call]]:
    """What each call of two functions that take turns took, after warming up."""
    took: tuple[list[Call], list[Call]] = ([], [])
    with EnergyMeter() as energy:
        for number in range(-WARM, times):
            for call, found in ((a, took[0]), (b, took[1])):
                begun, before = time.perf_counter(), energy.joules
                call()
                ms, after = (time.perf_counter() - begun) * 1000, energy.joules
                if number >= 0:
                    found.append((ms, None if after is None or before is None else after - before))
            if number >= 0:
                progress(number + 1)
    return took


def _timing(
    system: str,
    batch: int,
    took: Sequence[Call],
    tokens: int,
    first: Sequence[Call] | None = None,
) -> Timing:
    ranked = sorted(ms for ms, _ in took)
    used = [joules for _, joules in took if joules is not None]
    late = ranked[min(len(ranked) - 1, round(0.95 * (len(ranked) - 1)))]
    return Timing(
        system=system,
        batch=batch,
        p50_ms=median(ranked),
        p95_ms=late,
        tokens=tokens,
        first_ms=median(ms for ms, _ in first) if first else None,
        joules=mean(used) if used else None,
    )


def _memory(folder: Path, tokens: int) -> float:
    """Megabytes that a process of its own takes at most to load the model and answer once; 0 where
    it could not say."""
    code = (
        "import sys; from residency.workflows.bench import measure_memory; "
        "print(measure_memory(sys.argv[1], int(sys.argv[2])))"
    )
    asked = subprocess.run(
        [sys.executable, "-c", code, folder, str(tokens)],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return float(asked.stdout.split()[-1])
    except (IndexError, ValueError):
        return 0.0


def measure_memory(folder: str, tokens: int) -> float:
    """In a process of its own: load, answer once, and say how much memory that took at most, in
    megabytes."""
    import torch

    with silent():
        subject = _subject(artefact_of(folder), Path(folder), tokens)
        list(subject.predictor.predict([subject.example]))
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        2**20 if sys.platform == "darwin" else 2**10
    )


def page(speed: Speed) -> Page:
    """The figures for a reader."""
    from residency.evals import plots

    pairs = list(zip(speed.timings[::2], speed.timings[1::2], strict=True))
    ours, plain = pairs[0]
    timed = timed_by(speed.output)
    rows = tuple(_row(one, other, one is a) for a, b in pairs for one, other in ((a, b), (b, a)))
    lines = {
        name: [(one.batch, one.tokens_per_second) for one in speed.timings if one.system == name]
        for name in ("residency", "transformers")
    }
    plot = plots.line_plot(lines, "rows in a batch", "tokens/s")
    return Page(
        title=f"{speed.model}: speed",
        eyebrow=f"Speed of a model, {speed.created}",
        lead=f"At batch {ours.batch} it {timed.verb} 100 tokens in {ours.ms_per_100:.1f} ms "
        f"(median of {speed.times}, after {WARM} to warm up); plain transformers with the same "
        f"weights in {plain.ms_per_100:.1f} ms.",
        facts=(
            ("Base model", speed.base),
            ("Tokens", f"{speed.length:,} {timed.measured}"),
            ("Hardware", speed.hardware),
            ("Memory of a process that answers", f"{speed.memory_mb:,.0f} MB"),
        ),
        sections=(
            Section(
                title="Times",
                columns=COLUMNS,
                rows=rows,
                numeric=(0, 2, 3, 4, 5, 6, 7, 8),
                caption="p50 and p95 are of answering a whole batch; both systems took turns in "
                "one process",
            ),
            Section(
                title="Throughput by batch size",
                svg=plots.inline(plot, "throughput", "Tokens a second by batch size"),
                caption="The numbers are in the table.",
            ),
        ),
    )


COLUMNS = (
    "batch",
    "system",
    "p50, ms",
    "p95, ms",
    "first token, ms",
    "ms per 100 tokens",
    "tokens/s",
    "J per 100 tokens",
    "times plain",
)


def _row(one: Timing, other: Timing, ours: bool) -> tuple[str, ...]:
    """A system's figures beside the other's."""
    return (
        str(one.batch),
        one.system,
        f"{one.p50_ms:.1f}",
        f"{one.p95_ms:.1f}",
        f"{one.first_ms:.1f}" if one.first_ms else "–",
        f"{one.ms_per_100:.1f}",
        f"{one.tokens_per_second:,.0f}",
        one.joules_per_100,
        f"{other.p50_ms / one.p50_ms:.2f}" if ours else "",
    )
