"""Heartbeats of background processes and of periodic tasks."""

from __future__ import annotations

from django.db import models


class Heartbeat(models.Model):
    """The last heartbeat of one process or one periodic task.

    Attributes
    ----------
    name : Celery's node name of the process, or the task's dotted name.
    role : the process's role (see `training.jobs.heartbeats`), or ``task``.
    at : time when the process was last alive, or when the task last began.
    """

    name = models.CharField(max_length=255, primary_key=True)
    role = models.CharField(max_length=20)
    at = models.DateTimeField()

    def __str__(self) -> str:
        return f"{self.role} {self.name}"
