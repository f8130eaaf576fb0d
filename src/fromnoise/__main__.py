"""`python -m fromnoise` is the `fromnoise` command."""

import sys

from fromnoise.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
