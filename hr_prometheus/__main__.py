"""``python -m hr_prometheus`` is the command ``hr-prometheus``."""

try:  # Ctrl-C may come before the command takes it
    from hr_prometheus.cli import main
except KeyboardInterrupt:
    raise SystemExit(130) from None

if __name__ == "__main__":
    main("python -m hr_prometheus")
