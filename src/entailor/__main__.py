"""``python -m entailor``: the command line, where the script of the same name is not on the path."""

from entailor.cli.app import main

if __name__ == "__main__":
    main()
