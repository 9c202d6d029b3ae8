"""openmed, rules only: its deterministic sweep over the patterns of a language, no model. Reads
notes, prints findings and seconds."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from openmed.core.safety_sweep import safety_sweep


def main() -> None:
    data = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    lang = data["lang"]
    safety_sweep(data["texts"][0], [], lang=lang)
    started = time.process_time()
    found = [
        [(one.start, one.end) for one in safety_sweep(text, [], lang=lang)]
        for text in data["texts"]
    ]
    print(json.dumps({"seconds": time.process_time() - started, "found": found}))


if __name__ == "__main__":
    main()
