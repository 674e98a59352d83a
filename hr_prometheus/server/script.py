"""Runs a target without an attribute, a script, as ``__main__``.

Meanwhile ``aiohttp.web.run_app`` and ``AppRunner.setup`` are replaced. With ``--client-metrics=all``, which replaces
``ClientSession.__init__``, these are the substitutions that hr-prometheus makes, and only the launcher makes them.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any

from aiohttp import web

from hr_prometheus.errors import HrPrometheusError, TargetError
from hr_prometheus.server.importer import (
    application_error,
    file_path,
    is_missing,
    missing_module_error,
    put_first_on_path,
    suggest_application,
)
from hr_prometheus.server.target import replace_attribute

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from hr_prometheus.server.target import Target

    SetUp = Callable[[web.AppRunner, Callable[[web.AppRunner], Awaitable[None]]], Awaitable[None]]


def run_script(
    target: Target,
    arguments: Sequence[str],
    app_dir: str,
    run_app: Callable[..., None],
    set_up: SetUp,
    *,
    others_serve: Callable[[], bool] = lambda: False,
) -> None:
    """Run the target as ``__main__``, with *run_app* in the place of ``aiohttp.web.run_app``.

    *set_up* takes the place of ``aiohttp.web.AppRunner.setup``; it is called with the runner and the original.
    *others_serve* says whether processes that the script has forked have called one of them.

    What the script raises is raised as :exc:`~hr_prometheus.errors.ApplicationError`, except
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
    with (
        replace_attribute(web, "run_app", counted_run_app),
        replace_attribute(web.AppRunner, "setup", counted_set_up),
    ):
        try:
            if target.is_file:
                path = file_path(target)
                put_first_on_path(os.path.dirname(path))
                names = runpy.run_path(path, run_name="__main__")
            else:
                put_first_on_path(app_dir)
                _check_module(target, app_dir)
                names = runpy.run_module(target.module, run_name="__main__", alter_sys=True)
        except HrPrometheusError:
            raise
        except Exception as error:
            raise application_error(f'"{target.text}" failed', error) from error
    if not (calls or others_serve()):
        raise TargetError(
            f'the script "{target.text}" has ended without calling web.run_app or AppRunner.setup, so hr-prometheus has '
            "served nothing. Expected a script which calls one of them, or a target with an attribute, "
            f'"module:attribute".{suggest_application(target.module, names)}'
        )


def _check_module(target: Target, app_dir: str) -> None:
    """Check that the module of a script exists, without running it."""
    name = target.module
    try:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.submodule_search_locations is not None:
            name += ".__main__"
            spec = importlib.util.find_spec(name)
    except ModuleNotFoundError as error:
        if not is_missing(name, error):
            raise
        spec = None
    if spec is None and name != target.module:
        hint = suggest_application(target.module, vars(sys.modules[target.module]))
        raise TargetError(
            f'the package "{target.module}" has no module __main__, so it cannot be run as a script. Expected a script '
            f'which calls web.run_app, or a target with an attribute, "module:attribute".{hint}'
        )
    if spec is None:
        raise missing_module_error(name, app_dir, suggest_application)
