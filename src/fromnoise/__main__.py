"""The `fromnoise` command, and `python -m fromnoise`."""

import sys


def main() -> int:
    """Run the command line; Ctrl-C while its code is still being imported ends it as quietly as later on."""
    try:
        from fromnoise.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        print("warning: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
