"""`python -m study` is the command `study`."""

from study.cli.main import main

if __name__ == "__main__":
    main()
