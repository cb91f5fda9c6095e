"""Vigía's gunicorn settings without its hooks: worker class, processes, threads, keep-alive."""

import runpy
from pathlib import Path

_settings = runpy.run_path(str(Path(__file__).resolve().parents[2] / "config" / "gunicorn.py"))
_hooks = {name for name, value in _settings.items() if callable(value)}
globals().update({name: value for name, value in _settings.items() if name not in _hooks and name[0] != "_"})
