"""Modules that are installed, hidden as if they were not."""

import sys

import pytest


def hide(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no import find a package, also where it was imported before."""
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
