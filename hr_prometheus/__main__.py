"""The command: ``hr-prometheus`` and ``python -m hr_prometheus``."""


def main(prog_name: str | None = None) -> None:
    """Run the command; Ctrl-C is taken before anything else is imported."""
    try:
        from hr_prometheus import interrupts  # noqa: PLC0415

        interrupts.take()
        from hr_prometheus.cli_commands import main as command  # noqa: PLC0415
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    command(prog_name=prog_name)


if __name__ == "__main__":
    main("python -m hr_prometheus")
