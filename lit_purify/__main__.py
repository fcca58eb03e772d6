"""``python -m lit_purify``."""

import sys

from lit_purify.cli import main

if __name__ == "__main__":
    sys.exit(main())
