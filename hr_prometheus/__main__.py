"""``python -m hr_prometheus``."""

from hr_prometheus.cli_observability import main

main(prog_name="python -m hr_prometheus")
