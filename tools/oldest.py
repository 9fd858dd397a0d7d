"""Print the oldest packages that pyproject.toml allows, as requirements for pip.

python tools/oldest.py >oldest.txt && pip install -e '.[test]' -r oldest.txt
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))


def main() -> None:
    """Print one line per package of the project and of its tests."""
    project = PROJECT["project"]
    for requirement in [*project["dependencies"], *project["optional-dependencies"]["test"]]:
        found = re.match(r"([\w-]+)>=([\d.]+)", requirement)
        if found is None:
            raise SystemExit(f"{requirement!r} says no oldest version")
        print(f"{found.group(1)}=={found.group(2)}")


if __name__ == "__main__":
    main()
