"""The application: its groups of commands, ``--version``, and the login."""

from __future__ import annotations

from typing import Annotated

import typer

from vigia_ml.cli import answering, batching, lifecycle, pushing
from vigia_ml.cli.output import say, show_fields, show_table
from vigia_ml.cli.session import Session, command
from vigia_ml.client import Client, settings
from vigia_ml.client.wire import library_version

app = typer.Typer(
    help="Ask and manage the models of a Vigía service.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # they would show the key
    epilog="Exit codes: 0 done; 1 refused; 2 wrong usage; 3 a run or batch failed or a gate was not passed; "
    "4 no answer, or not now; 5 no access; 6 some rows were invalid.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vigiactl {library_version()}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Ask and manage the models of a Vigía service."""


@command(app)
def login(session: Session) -> None:
    """Store address and key for later commands, after asking the service."""
    url = session.url or typer.prompt("Address of the service", default="http://127.0.0.1:8000")
    key = session.key or typer.prompt("Client key", hide_input=True)
    url, key = settings.checked_url(url), settings.checked_key(key)
    with Client(url, key, retries=0) as client:
        models = client.models()
    path = settings.write_login(settings.Login(url, key))
    names = ", ".join(model.name for model in models) or "no model"
    say(session, f"Stored in {path}. The key has rights for: {names}.")
    if session.as_json:
        show_fields(session, {"url": url, "path": str(path), "models": [model.name for model in models]}, {})


@command(app)
def logout(session: Session) -> None:
    """Forget the stored address and key."""
    was_there = settings.forget_login()
    say(session, "The login was deleted." if was_there else "There was no login.")


@command(app)
def models(session: Session) -> None:
    """List the models that the key may use."""
    with session.client() as client:
        found = client.models()
    columns = {
        "NAME": lambda model: model.name,
        "ACTIVE": lambda model: model.active_version,
        "TASK": lambda model: model.task,
        "POLICY": lambda model: model.policy,
        "TITLE": lambda model: model.title,
    }
    show_table(session, found, columns)


for group in (answering, batching, lifecycle, pushing):
    group.register(app)
