"""Durable background jobs."""

from escala.tasks.context import JobContext, Snooze, progress
from escala.tasks.job import File, Job, Output
from escala.tasks.task import Task, task

__all__ = ["File", "Job", "JobContext", "Output", "Snooze", "Task", "progress", "task"]
