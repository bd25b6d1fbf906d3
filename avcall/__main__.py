"""`python -m avcall` and the `avcall` command."""

from avcall.cli import main

if __name__ == "__main__":
    main()
