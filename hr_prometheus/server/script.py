"""A target without an attribute: a script, which is run as ``__main__``.

For that time ``aiohttp.web.run_app`` and ``AppRunner.setup`` are replaced. These are the two substitutions that
hr-prometheus makes, and only the launcher makes them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hr_prometheus.errors import HrPrometheusError, TargetError
from hr_prometheus.server import guesses
from hr_prometheus.server.target import application_error, existing_file, is_of, no_module, put_first, replaced

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from hr_prometheus.server.target import Target

    SetUp = Callable[[web.AppRunner, Callable[[web.AppRunner], Awaitable[None]]], Awaitable[None]]


def run_script(
    target: Target, arguments: Sequence[str], app_dir: str, run_app: Callable[..., None], set_up: SetUp
) -> None:
    """Run the target as ``__main__``, with *run_app* in the place of ``aiohttp.web.run_app``.

    *set_up* takes that of ``aiohttp.web.AppRunner.setup``, which it is given as well as the runner.

    What the script raises is raised as :exc:`~hr_prometheus.errors.ApplicationError`, but for
    :exc:`SystemExit`, which is the script's own way to end.
    """
    import runpy  # noqa: PLC0415  # only for scripts

    calls, original_set_up = 0, web.AppRunner.setup

    def counted_run_app(*args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        run_app(*args, **kwargs)

    async def counted_set_up(runner: web.AppRunner) -> None:
        nonlocal calls
        calls += 1
        await set_up(runner, original_set_up)

    sys.argv = [target.module, *arguments]
    with replaced(web, "run_app", counted_run_app), replaced(web.AppRunner, "setup", counted_set_up):
        try:
            if target.is_file:
                path = existing_file(target)
                put_first(os.path.dirname(path))
                names = runpy.run_path(path, run_name="__main__")
            else:
                put_first(app_dir)
                _find(target, app_dir)
                names = runpy.run_module(target.module, run_name="__main__", alter_sys=True)
        except HrPrometheusError:
            raise
        except Exception as error:
            raise application_error(f'"{target.text}" failed', error) from error
    if not calls:
        raise _served_nothing(target, names)


def _find(target: Target, app_dir: str) -> None:
    """Check that the module of a script exists, without running it."""
    name = target.module
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name += ".__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if not is_of(name, error):
            raise
        spec = None
    if spec is None and name != target.module:
        raise TargetError(
            f'the package "{target.module}" has no module __main__, so it cannot be run as a script. Expected a script '
            'which calls web.run_app, or a target with an attribute, "module:attribute".'
            + guesses.did_you_mean_attribute(target.module, vars(sys.modules[target.module]))
        )
    if spec is None:
        raise no_module(name, app_dir)


def _served_nothing(target: Target, names: dict[str, object]) -> TargetError:
    hint = guesses.did_you_mean_attribute(target.module, names)
    return TargetError(
        f'the script "{target.text}" has ended without calling web.run_app or AppRunner.setup, so hr-prometheus has served nothing. '
        f'Expected a script which calls one of them, or a target with an attribute, "module:attribute".{hint}'
    )
