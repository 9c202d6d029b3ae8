"""llama.cpp's own server, which the package xllamacpp brings, as a process of its own.

Run by its path, with the interpreter of an environment that holds the package: it imports nothing
of this one. The key that it asks for is in LLAMA_API_KEY.
"""

from __future__ import annotations

import argparse
import os
import signal
from typing import Any

KEY = "LLAMA_API_KEY"


def parameters(model: str, threads: int) -> Any:
    """How a file is loaded, whoever asks it."""
    import xllamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = model
    # more threads than cores that are free wait for each other, and take all time with it
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.warmup, settings.verbosity = False, -1
    # weights that the processor's instructions want in another order are held once, not twice
    settings.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    settings.cache_ram_mib = 0  # nothing of a request is kept once its place is taken
    settings.endpoint_slots = settings.ui = False
    return settings


def main() -> None:
    """Serve until the process is ended."""
    import xllamacpp

    options = argparse.ArgumentParser()
    for name, kind in (("model", str), ("host", str), ("port", int), ("rows", int)):
        options.add_argument(f"--{name}", type=kind, required=True)
    options.add_argument("--window", type=int, required=True, help="tokens of each row")
    given = options.parse_args()
    threads = os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0))
    settings = parameters(given.model, int(threads))
    settings.n_parallel, settings.n_ctx = given.rows, given.rows * given.window
    settings.hostnames, settings.port = [given.host], given.port
    settings.api_keys = [os.environ[KEY]]
    server = xllamacpp.Server(settings)
    while server.listening_address:
        signal.pause()


if __name__ == "__main__":
    main()
