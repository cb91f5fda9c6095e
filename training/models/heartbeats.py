"""Signs of life of background processes, and of the tasks they do periodically."""

from __future__ import annotations

from django.db import models


class Heartbeat(models.Model):
    """The last sign of life of one process or one periodic task.

    Attributes
    ----------
    name : the process (Celery's node name) or the task's dotted name.
    role : what the process is for (see `training.jobs.heartbeats`), or ``task``.
    at : when the process was last seen alive; when the task last began.
    """

    name = models.CharField(max_length=255, primary_key=True)
    role = models.CharField(max_length=20)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.role} {self.name}"
