"""``python -m hr_prometheus``."""

from hr_prometheus.cli import main

main(prog_name="python -m hr_prometheus")
