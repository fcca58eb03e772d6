"""``python -m lit_purify``, and ``lit-purify``, which is the same."""

import sys
from pathlib import Path

from lit_purify.cli import main


def console_script() -> int:
    """Run the command line; modules in the working folder can be named, as with ``python -m``."""
    if not sys.flags.safe_path:
        sys.path.insert(0, str(Path.cwd()))
    return main()


if __name__ == "__main__":
    sys.exit(main())
