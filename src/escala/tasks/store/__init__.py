"""The queue in PostgreSQL. Every function executes one statement of `tasks/sql`.

A worker process has a lease: a row in `escala.worker`, which it renews. A claim gives a job to an owner (one start of a
worker process) with an attempt number. Each later write names both. If they no longer match the job, the write changes
nothing and reports that.
"""
