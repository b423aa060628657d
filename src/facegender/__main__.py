"""``python -m facegender``: the same as the command ``facegender``."""

from facegender.cli import main

main()
