"""`python -m study` is the command `study`."""

from study.cli.main import main

main()
