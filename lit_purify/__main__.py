"""``python -m lit_purify``."""

from lit_purify.cli import main

if __name__ == "__main__":
    main()
