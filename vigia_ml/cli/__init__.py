"""`vigiactl`, the command line of the service. It needs what the client needs, and typer with rich."""

from __future__ import annotations


def main() -> None:
    """Runs the command line."""
    from vigia_ml.cli.app import app

    app()
