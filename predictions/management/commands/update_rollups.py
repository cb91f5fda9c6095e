"""``manage.py update_rollups [MODEL] [--recount --since TIME [--until TIME]]``: counts the log."""

from __future__ import annotations

import argparse
import datetime as dt
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from predictions.outcomes.parsing import moment
from predictions.rollups import counting
from training.models import RegisteredModel
from training.registry import lookup
from vigia_ml.errors import VigiaError
from vigia_ml.schema import Fault


class Command(BaseCommand):
    help = "Counts what is new in the log into the hourly rollups; with --recount, a window of it anew."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", nargs="?", help="name of a registered model; all without one")
        parser.add_argument("--recount", action="store_true", help="throw hours away and count them anew")
        parser.add_argument("--since", type=_moment, metavar="TIME", help="first hour that is counted anew")
        parser.add_argument("--until", type=_moment, metavar="TIME", help="count anew to here; else to now")

    def handle(self, *args: Any, **options: Any) -> None:
        since, until = options["since"], options["until"]
        if options["recount"] != (since is not None) or (until is not None and since is None):
            raise CommandError("--recount needs --since, and --since and --until need --recount")
        for model in self._models(options["model"]):
            rows = counting.recount(model, since, until or timezone.now()) if since is not None else 0
            done = counting.roll_up(model)
            to = "nothing is logged" if done.counted_to is None else f"counted to {done.counted_to:%F %T} UTC"
            self.stdout.write(f"{model.name}: {rows + done.rows:,} rows, {to}")

    def _models(self, name: str | None) -> list[RegisteredModel]:
        if name is None:
            return list(RegisteredModel.objects.all())
        try:
            return [lookup.get_model(name)]
        except VigiaError as error:
            raise CommandError(error.message) from None


def _moment(text: str) -> dt.datetime:
    read = moment(text, "time")
    if isinstance(read, Fault):
        raise argparse.ArgumentTypeError(read.message)
    return read
