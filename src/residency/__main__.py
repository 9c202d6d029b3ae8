"""``python -m residency``: the command line."""

from residency.cli import main

main()
