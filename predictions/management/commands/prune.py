"""Removes old artifacts: ``manage.py prune [MODEL] [--keep N] [--although-logged] [--dry-run]``."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import CommandParser
from django.template.defaultfilters import filesizeformat

from predictions.management.model_commands import ModelsCommand
from predictions.retention import is_in_the_log
from training.registry import artifact_pruning
from training.runs import pushes


class Command(ModelsCommand):
    help = "Removes the artifacts of old retired versions from the store; the versions' rows stay."

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
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
        for model in self.models(options["model"]):
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
        if not options["dry_run"] and (left := pushes.remove_orphans()):
            self.stdout.write(f"files of {left:,} pushes without a run removed")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError("must be a whole number, 0 or more")
    return int(text)
