"""``python -m hr_prometheus.workers CONTROL SLOT TARGET``: one worker, as the supervisor starts it."""

from hr_prometheus.workers.worker import main

main()
