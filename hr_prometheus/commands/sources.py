"""What a command line leaves open: the file of variables and the configuration file, read in their order."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from hr_prometheus.commands.config_file import find_config_file, read_config_file
from hr_prometheus.commands.environment import load_env_file, warn_of_unknown_variables
from hr_prometheus.commands.file_settings import read_settings
from hr_prometheus.commands.parameters import CONFIG_FILE, CONFIG_PATH, ENV_FILE, Parameter, origins_of
from hr_prometheus.errors import ConfigurationError
from hr_prometheus.origins import place_in

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hr_prometheus.commands.config_file import ConfigFile

_TYPED = {ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT}


def read_files(ctx: click.Context, opts: Mapping[str, Any]) -> bool:
    """Set the variables of ``--env-file``, and make the settings of the configuration file the command's defaults.

    *opts* are the values on the command line, as click's parser has them. The variables may name the configuration file;
    if nothing else names a file of variables, the configuration file may. Return whether the target is that of the file.
    Raises :exc:`~hr_prometheus.errors.ConfigurationError` if a file cannot be read, or is wrong.
    """
    parameters = {str(each.name): each for each in ctx.command.params if isinstance(each, Parameter)}
    path, source = parameters["env_file"].consume_value(ctx, opts)
    if source in _TYPED:
        _set_variables(ctx, path)
    file = _config_file(ctx, parameters, opts)
    if file is None:
        return False
    has_target = _set_defaults(ctx, file, parameters, opts)
    path, source = parameters["env_file"].consume_value(ctx, opts)
    if source is ParameterSource.DEFAULT_MAP:
        _set_variables(ctx, path)
    return has_target


def _set_variables(ctx: click.Context, path: str) -> None:
    lines = load_env_file(path, origins_of(ctx)["env_file"].quote())
    places = ctx.meta.setdefault(ENV_FILE, {})
    places.update({name: {"file": path, "lines": (line,)} for name, line in lines.items()})
    words = {name: f" {place_in(path, line)}" for name, line in lines.items()}
    warn_of_unknown_variables(words, ctx.find_root().command)


def _config_file(ctx: click.Context, parameters: Mapping[str, Parameter], opts: Mapping[str, Any]) -> ConfigFile | None:
    path, source = parameters["config"].consume_value(ctx, opts)
    value, other = parameters["no_config"].consume_value(ctx, opts)
    is_left_out = parameters["no_config"].process_value(ctx, value)
    if is_left_out and source is other is ParameterSource.COMMANDLINE:
        raise ConfigurationError("--config was given with --no-config. Leave one of them out.")
    if is_left_out and source is not ParameterSource.COMMANDLINE:
        ctx.meta[CONFIG_PATH] = None
        return None
    if source in _TYPED:
        return read_config_file(path, origins_of(ctx)["config"].quote())
    return find_config_file()


def _set_defaults(
    ctx: click.Context, file: ConfigFile, parameters: Mapping[str, Parameter], opts: Mapping[str, Any]
) -> bool:
    origins = read_settings(file, commands_of(ctx), str(ctx.command.name))
    target = parameters.get("target")
    is_typed = target is not None and target.consume_value(ctx, opts)[1] is ParameterSource.COMMANDLINE
    if is_typed:
        origins.pop("arguments", None)  # which are for another target
    elif "target" in origins and file.directory:  # where its modules are
        app_dir = replace(origins["target"], option="--app-dir", values=(file.directory,), is_derived=True)
        origins.setdefault("app-dir", app_dir)
    ctx.meta[CONFIG_PATH], ctx.meta[CONFIG_FILE] = file.path, origins
    ctx.default_map = {
        name: list(origins[each.key].values) if each.is_list else origins[each.key].values[0]
        for name, each in parameters.items()
        if each.key in origins
    }
    return "target" in origins and not is_typed


def commands_of(ctx: click.Context) -> Mapping[str, click.Command]:
    """Return the commands that files may have settings for, by their names."""
    root = ctx.find_root().command
    commands = root.commands if isinstance(root, click.Group) else {str(root.name): root}
    return {name: command for name, command in commands.items() if getattr(command, "reads_files", False)}
