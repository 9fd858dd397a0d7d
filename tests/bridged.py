"""Packages at the other end of a bridge: tests of it are left out without them, but not in CI."""

from __future__ import annotations

import importlib
import os
import warnings
from typing import Any

import pytest


def bridged(name: str) -> Any:
    """Return the package; some warn of themselves when they are imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name) if os.environ.get("CI") else pytest.importorskip(name)
