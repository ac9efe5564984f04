"""``python -m socketlab``: the command line."""

from socketlab.cli import main

if __name__ == "__main__":
    main()
