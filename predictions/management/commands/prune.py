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
    help = "Removes the artifacts of versions retired long ago from the store; their rows stay."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("model", nargs="?", help="name of a registered model; all without one")
        parser.add_argument(
            "--keep",
            type=_whole,
            metavar="N",
            help="retired versions that keep theirs; else as the model says",
        )
        parser.add_argument(
            "--although-logged", action="store_true", help="also of versions that rows of the log refer to"
        )
        parser.add_argument("--dry-run", action="store_true", help="say what would be done")

    def handle(self, *args: Any, **options: Any) -> None:
        said = "would be pruned" if options["dry_run"] else "pruned"
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
                what = f"kept: {each.kept}" if each.kept else f"{said}, {filesizeformat(each.freed)}"
                self.stdout.write(f"{each.version}: {what}")
            freed += sum(each.freed for each in done)
            count += sum(not each.kept for each in done)
        self.stdout.write(f"{count} artifacts {said}, {filesizeformat(freed)}")

    def _models(self, name: str | None) -> list[RegisteredModel]:
        if name is None:
            return list(RegisteredModel.objects.all())
        try:
            return [lookup.get_model(name)]
        except VigiaError as error:
            raise CommandError(error.message) from None


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a whole number, 0 or more")
    return int(text)
