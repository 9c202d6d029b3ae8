"""Other tools, each in an environment of its own: reads notes, prints findings and seconds.

    python _deid_peers.py presidio notes.json

presidio   our patterns as recognisers beside its own, its operators, no language model
openmed    its deterministic sweep over the patterns of a language, no model
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Find = Callable[[str], list[tuple[int, int]]]


def openmed(data: dict[str, Any]) -> Find:
    from openmed.core.safety_sweep import safety_sweep

    lang = data["lang"]
    return lambda text: [(one.start, one.end) for one in safety_sweep(text, [], lang=lang)]


def presidio(data: dict[str, Any]) -> Find:
    import spacy
    from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine

    lang = data["lang"]

    class Blank(NlpEngine):
        """Splits text into words and nothing else: Presidio's engine without a model."""

        nlp = spacy.blank("en" if lang == "en" else "xx")
        load = is_loaded = lambda self: True
        is_stopword = is_punct = lambda self, word, language: False
        get_supported_entities = lambda self: []  # noqa: E731
        get_supported_languages = lambda self: [lang]  # noqa: E731

        def process_text(self, text: str, language: str) -> NlpArtifacts:
            doc = self.nlp(text)
            places, words = [token.idx for token in doc], [token.text for token in doc]
            return NlpArtifacts([], doc, places, words, self, language)

        def process_batch(self, texts, language, **_):  # type: ignore[no-untyped-def]
            for text in texts:
                yield text, self.process_text(text, language)

    registry = RecognizerRegistry(supported_languages=[lang])
    if lang != "vi":  # it has none for Vietnamese
        registry.load_predefined_recognizers(languages=[lang])
    for number, (kind, pattern) in enumerate(data["patterns"]):
        name = f"rule{number}"
        how = {"supported_language": lang, "name": name, "global_regex_flags": 0}
        patterns = [Pattern(name, pattern, 0.6)]
        recogniser = PatternRecognizer(supported_entity=kind.upper(), patterns=patterns, **how)
        registry.add_recognizer(recogniser)
    engine = AnalyzerEngine(registry=registry, nlp_engine=Blank(), supported_languages=[lang])
    return lambda text: [
        (one.start, one.end) for one in engine.analyze(text, lang, score_threshold=0.3)
    ]


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[2]).read_text("utf-8"))
    find: Find = globals()[sys.argv[1]](given)
    find(given["texts"][0])
    started = time.process_time()
    found = [find(text) for text in given["texts"]]
    print(json.dumps({"seconds": time.process_time() - started, "found": found}))
