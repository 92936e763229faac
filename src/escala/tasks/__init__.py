"""Durable background jobs."""

from escala.tasks.job import File, Job, Output, progress
from escala.tasks.task import Task, task

__all__ = ["File", "Job", "Output", "Task", "progress", "task"]
