"""The configuration of gunicorn for an application that is instrumented by itself.

gunicorn -c examples/gunicorn.conf.py --chdir examples 'library:create_instrumented_app([])'
"""

from hr_prometheus.workers.gunicorn import child_exit, on_exit, on_starting, post_fork, pre_fork

__all__ = ["child_exit", "on_exit", "on_starting", "post_fork", "pre_fork"]

worker_class = "aiohttp.GunicornWebWorker"
workers = 4
