"""`python -m runner` is the `connector` command."""

from runner.cli import main

if __name__ == "__main__":
    main()
