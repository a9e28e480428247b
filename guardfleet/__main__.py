"""`python -m guardfleet`."""

from guardfleet.cli import main

if __name__ == "__main__":
    main()
