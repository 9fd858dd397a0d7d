"""`python -m lmmsparse` → the same as the command `lmmsparse`."""

from __future__ import annotations

import sys

from lmmsparse.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
