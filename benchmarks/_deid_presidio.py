"""Presidio with our patterns: a recogniser per rule, its operators, no language model. Reads notes,
prints findings and seconds."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import spacy
from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine


class Blank(NlpEngine):
    """Splits text into words and nothing else: Presidio's engine without a model."""

    def __init__(self, lang: str) -> None:
        self.lang, self.nlp = lang, spacy.blank("en" if lang == "en" else "xx")

    def load(self) -> None:
        """Nothing to load."""

    def is_loaded(self) -> bool:
        """Always."""
        return True

    def process_text(self, text: str, language: str) -> NlpArtifacts:
        """Words."""
        doc = self.nlp(text)
        return NlpArtifacts(
            [], doc, [token.idx for token in doc], [token.text for token in doc], self, language
        )

    def process_batch(self, texts, language, **_):  # type: ignore[no-untyped-def]
        """One by one."""
        for text in texts:
            yield text, self.process_text(text, language)

    def is_stopword(self, word: str, language: str) -> bool:
        """None is."""
        return False

    def is_punct(self, word: str, language: str) -> bool:
        """None is."""
        return False

    def get_supported_entities(self) -> list[str]:
        """None."""
        return []

    def get_supported_languages(self) -> list[str]:
        """The one."""
        return [self.lang]


def main() -> None:
    data = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    lang = data["lang"]
    registry = RecognizerRegistry(supported_languages=[lang])
    if lang != "vi":  # it has none for Vietnamese
        registry.load_predefined_recognizers(languages=[lang])
    for number, (kind, pattern) in enumerate(data["patterns"]):
        registry.add_recognizer(
            PatternRecognizer(
                supported_entity=kind.upper(),
                supported_language=lang,
                name=f"rule{number}",
                patterns=[Pattern(f"rule{number}", pattern, 0.6)],
                global_regex_flags=0,
            )
        )
    engine = AnalyzerEngine(registry=registry, nlp_engine=Blank(lang), supported_languages=[lang])
    engine.analyze(data["texts"][0], lang)
    started = time.process_time()
    found = [
        [(one.start, one.end) for one in engine.analyze(text, lang, score_threshold=0.3)]
        for text in data["texts"]
    ]
    print(json.dumps({"seconds": time.process_time() - started, "found": found}))


if __name__ == "__main__":
    main()
