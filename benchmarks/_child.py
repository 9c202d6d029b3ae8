"""Calls ``module.function`` with arguments in JSON and prints what it returns as JSON.

    python benchmarks/_child.py module.function '[arguments]'

It imports nothing else, so that what a system takes is its own.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module

if __name__ == "__main__":
    module, _, name = sys.argv[1].partition(".")
    print(json.dumps(getattr(import_module(module), name)(*json.loads(sys.argv[2]))))
