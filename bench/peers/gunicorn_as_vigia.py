"""gunicorn's settings of Vigía, without its models: worker class, processes, threads, keep-alive."""

import runpy
from pathlib import Path

_theirs = runpy.run_path(str(Path(__file__).resolve().parents[2] / "config" / "gunicorn.py"))
_hooks = {name for name, value in _theirs.items() if callable(value)}
globals().update({name: value for name, value in _theirs.items() if name not in _hooks and name[0] != "_"})
