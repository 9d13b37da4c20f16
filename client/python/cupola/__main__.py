"""python -m cupola: the command line."""

from .cli import main

main()
