"""Further recognisers for ``deid.plugins``: Presidio's analyzer, and a model that tags names. Both
read what is on this machine only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from residency.core.errors import UserError
from residency.deid.find import KINDS, Finding

PRESIDIO_KINDS: Mapping[str, str] = {
    "PERSON": "name",
    "ORGANIZATION": "organisation",
    "LOCATION": "address",
    "PHONE_NUMBER": "phone",
    "EMAIL_ADDRESS": "email",
    "URL": "url",
    "IP_ADDRESS": "url",
    "CREDIT_CARD": "account",
    "IBAN_CODE": "account",
    "US_BANK_NUMBER": "account",
    "US_SSN": "national_id",
    "US_PASSPORT": "national_id",
    "US_DRIVER_LICENSE": "national_id",
    "UK_NHS": "national_id",
    "MEDICAL_LICENSE": "other",
}
"""Presidio's entity -> our kind; others are left alone (its DATE_TIME also means durations, our own
rules find dates)."""


class Presidio:
    """Asks Presidio's analyzer (package ``presidio-analyzer``); ``models``: language -> installed
    spaCy model, for its names.

    Without a model only Presidio's patterns are asked. Raises ``UserError`` where the package or a
    model is missing: nothing is downloaded.
    """

    name = "presidio"

    def __init__(
        self,
        languages: Sequence[str] = ("en",),
        kinds: Mapping[str, str] = PRESIDIO_KINDS,
        score: float = 0.4,
        models: Mapping[str, str] | None = None,
    ) -> None:
        try:
            import presidio_analyzer
        except ImportError:
            raise UserError(
                "deid.plugins: residency.deid.plugins:Presidio needs presidio-analyzer; install it "
                "into this environment."
            ) from None
        self.languages, self.kinds, self.score = frozenset(languages), _checked(kinds), score
        _stay_offline()
        registry = presidio_analyzer.RecognizerRegistry(supported_languages=list(languages))
        registry.load_predefined_recognizers(languages=list(languages))
        engine = _spacy(models) if models else _no_model(languages)
        self.analyzer = presidio_analyzer.AnalyzerEngine(
            registry=registry, nlp_engine=engine, supported_languages=list(languages)
        )

    def find(self, text: str, lang: str) -> Iterator[Finding]:
        """What Presidio finds of the kinds that count."""
        if lang not in self.languages:
            return
        for one in self.analyzer.analyze(text=text, language=lang, score_threshold=self.score):
            if kind := self.kinds.get(one.entity_type):
                yield Finding(one.start, one.end, kind, f"plugin:{self.name}")


def _stay_offline() -> None:
    """Presidio's recogniser of e-mails asks tldextract, which fetches a list of domains unless it
    is told to use its own."""
    try:
        from tldextract import TLDExtract, tldextract
    except ImportError:
        return
    tldextract.TLD_EXTRACTOR = TLDExtract(suffix_list_urls=(), cache_dir=None)


def _spacy(models: Mapping[str, str]) -> Any:
    """Presidio's engine with spaCy models that are here; it would download others."""
    import spacy
    from presidio_analyzer.nlp_engine import NlpEngineProvider

    for model in models.values():
        if not (spacy.util.is_package(model) or Path(model).is_dir()):
            raise UserError(
                f"deid.plugins: the spaCy model {model} is not installed; install its package, or "
                "name a folder."
            )
    chosen = [{"lang_code": lang, "model_name": model} for lang, model in models.items()]
    configuration = {"nlp_engine_name": "spacy", "models": chosen}
    return NlpEngineProvider(nlp_configuration=configuration).create_engine()


def _no_model(languages: Sequence[str]) -> Any:
    """An engine that splits words and does nothing else."""
    import spacy
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    class Words(SpacyNlpEngine):  # type: ignore[misc, unused-ignore]  # the package is optional
        def load(self) -> None:
            self.nlp = {lang: spacy.blank("en" if lang == "en" else "xx") for lang in languages}

    engine = Words(models=[{"lang_code": lang, "model_name": "blank"} for lang in languages])
    engine.load()
    return engine


class Tagger:
    """Asks a token classification model: the id of a base in the local cache, a folder with one, or
    the folder of one of our own runs whose task marks spans. ``kinds``: its label (without
    ``B-``/``I-``) -> our kind; other labels are left alone.

    Raises ``UserError`` where there is no such model on this machine.
    """

    def __init__(
        self,
        model: str,
        kinds: Mapping[str, str],
        languages: Sequence[str] = (),
        score: float = 0.5,
        name: str = "tagger",
    ) -> None:
        self.name, self.languages, self.kinds = name, frozenset(languages), _checked(kinds)
        paths = (Path(model) / "artefact.json", *sorted(Path(model).glob("train/*/artefact.json")))
        own = next((path.parent for path in paths if path.is_file()), None)
        self.spans = _own_run(own) if own else _transformer(model, score)

    def find(self, text: str, lang: str) -> Iterator[Finding]:
        """What the model marks, of the kinds that count."""
        if self.languages and lang not in self.languages:
            return
        for start, end, label in self.spans(text):
            if kind := self.kinds.get(label):
                yield Finding(start, end, kind, f"plugin:{self.name}")


def _own_run(folder: Path) -> Any:
    """What marks spans with the model of a run."""
    from residency.core.types import Example
    from residency.models.predictors import marker
    from residency.tasks.families.spans import spans_of

    predictor = marker(
        folder,
        f"deid.plugins: the model of {folder} does not mark spans; name a run whose task does.",
    )

    def spans(text: str) -> Iterable[tuple[int, int, str]]:
        for answer in predictor.predict([Example(id="", task="", input=text)]):
            for span in spans_of(answer.answer):
                yield span.start, span.end, span.label

    return spans


def _transformer(model: str, score: float) -> Any:
    """What marks spans with a token classification model of transformers; long notes are read in
    windows that overlap."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, local_files_only=True)
        network = AutoModelForTokenClassification.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError):
        raise UserError(
            f"deid.plugins: {model} is no token classification model on this machine; name a "
            "folder that holds one."
        ) from None
    longest = getattr(network.config, "max_position_embeddings", 512)
    window = min(tokenizer.model_max_length, longest, 512)
    tokenizer.model_max_length = window
    how = {"aggregation_strategy": "simple", "stride": window // 4}
    ask = pipeline("token-classification", model=network, tokenizer=tokenizer, **how)

    def spans(text: str) -> Iterable[tuple[int, int, str]]:
        if not text.strip():
            return
        for one in ask(text):
            if one["score"] >= score:
                yield int(one["start"]), int(one["end"]), str(one["entity_group"])

    return spans


def _checked(kinds: Mapping[str, str]) -> dict[str, str]:
    for label, kind in kinds.items():
        if kind not in KINDS:
            raise UserError(
                f"deid.plugins: {label}: {kind} is no kind of identifier; allowed: "
                f"{', '.join(KINDS)}."
            )
    return dict(kinds)
