"""A CRF as a folder that CRFsuite reads anywhere: its weights, its features, its labels."""

from __future__ import annotations

import shutil
from pathlib import Path

from residency.core.files import file_digest, whole_folder, write_json, write_text
from residency.export.merged import check_new
from residency.models import artefact as artefacts
from residency.models.crf import FEATURES, WEIGHTS
from residency.models.predictors import kind_of

FILE = "export.json"
README = """# {task}: a CRF over lexical features

`{weights}` is a model file of CRFsuite 0.12, `{features}` says which features its texts must be given as, and
holds the dictionaries; `{file}` holds the outputs, the card and the hash of each file. With python-crfsuite
and residency (no torch is needed):

```python
import json
from pathlib import Path
from residency.models.crf import CrfPredictor
from residency.tasks.card import Card

folder = Path(".")
card = Card(**json.loads((folder / "{file}").read_text("utf-8"))["card"])
model = CrfPredictor.of_files(folder, card, "crf", "exported")
print(model.classify(["..."]))
```

The files hold words of the notes that it learned from (profile: {profile}): share them as you would the notes.
"""  # noqa: E501


def export(artefact: Path, out: Path) -> list[str]:
    """Write an artefact's CRF to a new folder, whole or not at all; the names of its files.

    Raises ``UserError`` for a model of another kind, or a folder that holds something.
    """
    found = artefacts.read(artefact)
    kind_of(found).check_able("crf", artefact)
    check_new(out)
    with whole_folder(out) as partial:
        for name in (WEIGHTS, FEATURES):
            shutil.copyfile(artefact / name, partial / name)
        names = {"weights": WEIGHTS, "features": FEATURES, "file": FILE}
        text = README.format(task=found.task().name, profile=found.profile, **names)
        write_text(partial / "README.md", text)
        said = {
            "artefact": file_digest(artefact / artefacts.FILE),
            "card": found.card,
            "outputs": found.head.outputs(found.task()),
            "profile": found.profile,
            "files": {path.name: file_digest(path) for path in sorted(partial.iterdir())},
        }
        write_json(partial / FILE, said)
    return sorted(path.name for path in out.iterdir())
