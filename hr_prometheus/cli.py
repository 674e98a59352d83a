"""The command ``hr-prometheus``: its entry point. The commands are in :mod:`hr_prometheus.commands`, a module each."""


def main(prog_name: str | None = None) -> None:
    """Run the command. Ctrl-C is taken before anything else is imported, so that it never is a traceback."""
    try:
        from hr_prometheus.server import interrupts  # noqa: PLC0415

        interrupts.exit_at_once()
        from hr_prometheus.commands.group import cli  # noqa: PLC0415
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    cli(prog_name=prog_name)
