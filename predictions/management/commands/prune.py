"""Removes old artifacts: ``manage.py prune [MODEL] [--keep N] [--although-logged] [--dry-run]``."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.template.defaultfilters import filesizeformat

from predictions.retention import is_in_the_log
from training.models import RegisteredModel
from training.registry import artifact_pruning, lookup
from vigia_ml.errors import VigiaError


class Command(BaseCommand):
    help = "Removes the artifacts of old retired versions from the store; the versions' rows stay."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", nargs="?", help="name of a registered model (default: all models)")
        parser.add_argument(
            "--keep",
            type=_count,
            metavar="N",
            help="number of retired versions that keep their artifact (default: the model's setting)",
        )
        parser.add_argument(
            "--although-logged",
            action="store_true",
            help="also remove artifacts of versions that the log refers to",
        )
        parser.add_argument("--dry-run", action="store_true", help="list the artifacts, remove nothing")

    def handle(self, *args: Any, **options: Any) -> None:
        verb = "would be pruned" if options["dry_run"] else "pruned"
        freed = count = 0
        for model in self._models(options["model"]):
            done = artifact_pruning.prune(
                model,
                is_referred_to=is_in_the_log,
                keep=options["keep"],
                although_logged=options["although_logged"],
                dry_run=options["dry_run"],
            )
            for each in done:
                result = f"kept: {each.kept}" if each.kept else f"{verb}, {filesizeformat(each.freed)}"
                self.stdout.write(f"{each.version}: {result}")
            freed += sum(each.freed for each in done)
            count += sum(not each.kept for each in done)
        self.stdout.write(f"{count} artifacts {verb}, {filesizeformat(freed)}")

    def _models(self, name: str | None) -> list[RegisteredModel]:
        if name is None:
            return list(RegisteredModel.objects.all())
        try:
            return [lookup.get_model(name)]
        except VigiaError as error:
            raise CommandError(error.message) from None


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a whole number, 0 or more")
    return int(text)
