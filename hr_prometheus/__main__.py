"""``python -m hr_prometheus`` is the command ``hr-prometheus``."""

from hr_prometheus.cli import main

if __name__ == "__main__":
    main("python -m hr_prometheus")
