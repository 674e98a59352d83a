"""Logging to standard error, where the application has set up none: as text, as JSON, or as a file has it."""

from __future__ import annotations

import json
import logging
import sys
import time
import tomllib
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from aiohttp.log import access_logger

from hr_prometheus.errors import SettingError
from hr_prometheus.server.access_log import QuietAccessLogger
from hr_prometheus.settings import DEFAULT_LOG_FORMAT, DEFAULT_LOG_LEVEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, MutableMapping

    from aiohttp.web import BaseRequest, StreamResponse

    from hr_prometheus.errors import ApplicationError
    from hr_prometheus.settings import Settings

logger = logging.getLogger("hr_prometheus")

#: What each record has. Anything else is what its logger was given as ``extra``.
_ATTRIBUTES = vars(logging.makeLogRecord({})).keys() | {"message", "asctime", "taskName"}

#: The slot of this process, if it is a worker.
_worker: int | None = None


def note_worker(slot: int) -> None:
    """Have each record of this process say that it is that of a worker."""
    global _worker  # noqa: PLW0603  # there is one in a process
    _worker = slot


class TextFormatter(logging.Formatter):
    """Lines for people, which begin with the time."""

    def __init__(self) -> None:
        worker = "" if _worker is None else f" (worker {_worker})"
        super().__init__(f"%(asctime)s %(levelname)s %(name)s{worker}: %(message)s")


class JsonFormatter(logging.Formatter):
    """A line of JSON for each record: time (UTC), level, logger, message, worker, exception, and what was given as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        milliseconds = int(record.created % 1 * 1000)
        fields: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{milliseconds:03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if _worker is not None:
            fields["worker"] = _worker
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            fields["stack"] = self.formatStack(record.stack_info)
        extra = {name: _encodable(value) for name, value in vars(record).items() if name not in _ATTRIBUTES}
        if extra.get("worker") == _worker_attribute():  # that of a filter
            del extra["worker"]
        return json.dumps(
            fields | {f"extra_{name}" if name in fields else name: extra[name] for name in extra}, default=str
        )


def _worker_attribute() -> int | str:
    return "" if _worker is None else _worker


def _add_worker(record: logging.LogRecord) -> bool:
    """Give a record the attribute ``worker``, unless it was given one as ``extra``. It is a filter, which keeps all records."""
    record.__dict__.setdefault("worker", _worker_attribute())
    return True


def _encodable(value: object) -> object:
    """Return a value if JSON can have it, else its text. An application may log anything."""
    with suppress(Exception):
        json.dumps(value, default=str, allow_nan=False)
        return value
    with suppress(Exception):
        return repr(value)
    return f"<{type(value).__name__}>"


_FORMATTERS = {"text": TextFormatter, "json": JsonFormatter}


def prepare_logging(settings: Settings) -> None:
    """Check the file of ``--log-config``, and log in a format that is asked for from now on, before anything is imported.

    Raises :exc:`~hr_prometheus.errors.ConfigurationError`.
    """
    check_log_config(settings)
    if settings.log_config is None and settings.log_format is not None:
        configure_logging(settings)


def check_log_config(settings: Settings) -> None:
    """Check that the file of ``--log-config`` can be read. What its handlers need is only known when they are made."""
    if settings.log_config is not None:
        read_log_config(settings.log_config)


def configure_logging(settings: Settings) -> None:
    """Log to standard error, unless logging is set up already, or as the file of ``--log-config`` says."""
    if settings.log_config is not None:
        from logging.config import dictConfig  # noqa: PLC0415  # seldom needed

        config = {"disable_existing_loggers": False, **read_log_config(settings.log_config)}
        try:
            dictConfig(config)
        except (ValueError, TypeError, AttributeError, ImportError) as error:
            reason = error.__cause__ or error
            raise log_config_error(
                settings.log_config, f"cannot be used: {error}{f' ({reason})' * (reason is not error)}."
            ) from error
        for each in (logging.root, *logging.root.manager.loggerDict.values()):
            for handler in getattr(each, "handlers", ()):  # a name that only others are below has none
                handler.addFilter(_add_worker)
    else:
        level = (settings.log_level or DEFAULT_LOG_LEVEL).upper()
        logging.basicConfig(level=level, handlers=[_stream_handler(settings)])


def read_log_config(path: str) -> dict[str, Any]:
    """Return the dictionary in a file of ``--log-config``. Raises :exc:`~hr_prometheus.errors.ConfigurationError`."""
    try:
        with open(path, "rb") as file:
            text = file.read().decode()
        config: Any = tomllib.loads(text) if path.endswith(".toml") else json.loads(text)
    except OSError as error:
        raise log_config_error(path, f"{error.strerror}.") from error
    except ValueError as error:
        raise log_config_error(path, f"cannot be read: {error}.") from error
    except RecursionError as error:
        raise log_config_error(path, "cannot be read: it is nested too deeply.") from error
    if not isinstance(config, dict) or "version" not in config:
        raise log_config_error(path, "has no version.")
    problem = _shape_problem(config)
    if problem:
        raise log_config_error(path, f"cannot be used: {problem}.")
    return config


def _shape_problem(config: Mapping[str, Any]) -> str:
    """Return what is wrong with a configuration, as far as it can be seen before anything in it is made; empty if nothing is.

    A text may stand for what it has elsewhere, as ``cfg://handlers`` does.
    """
    if config["version"] != 1:
        return f"Unsupported version: {config['version']}"
    for name in ("formatters", "filters", "handlers", "loggers", "root"):
        table = config.get(name, {})
        members = table.values() if isinstance(table, dict) and name != "root" else [table]
        if not all(isinstance(each, dict | str) for each in members):
            return f'"{name}" is not a table{" of tables" * (name != "root")}'
    handlers, loggers = config.get("handlers", {}), config.get("loggers", {})
    for name, table in {**(loggers if isinstance(loggers, dict) else {}), "root": config.get("root", {})}.items():
        names = table.get("handlers") if isinstance(table, dict) else ()
        for each in names if isinstance(names, list) else ():
            if str(each) not in handlers and not config.get("incremental"):
                return f'the logger "{name}" has a handler "{each}", and there is none of this name'
    return ""


def log_config_error(path: str, problem: str) -> SettingError:
    """Return the error for a file of ``--log-config``."""
    expected = "Expected a dictionary for logging.config.dictConfig, in JSON or, in a file whose name ends with .toml, in TOML."
    return SettingError("log_config", f'--log-config "{path}"', f": {problem} {expected}")


def _stream_handler(settings: Settings) -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_FORMATTERS[settings.log_format or DEFAULT_LOG_FORMAT]())
    return handler


def configure_application_logging(settings: Settings, *, is_script: bool) -> None:
    """Set up the logging of an application. A script's logging is its own, unless a level, a format or a file is given.

    An access log that is asked for is written all the same.
    """
    level = settings.log_level
    if not is_script or any((level, settings.log_format, settings.log_config)):
        configure_logging(settings)
    if level is not None:
        logging.getLogger().setLevel(level.upper())
    if settings.wants_access_log:
        access_logger.setLevel(logging.INFO)
        if not access_logger.hasHandlers():
            handler = _stream_handler(settings)
            handler.addFilter(lambda _record: not logging.getLogger().handlers)  # a script may set up logging later
            access_logger.addHandler(handler)


def in_log_format(announce: Callable[[str], None], settings: Settings) -> Callable[[str], None]:
    """Return a function that announces a line: as it is, or as the line of a record if ``--log-format json`` is asked for."""
    return (lambda line: announce(_json_line(logging.INFO, line))) if settings.log_format == "json" else announce


def print_failure(error: ApplicationError, settings: Settings) -> None:
    """Print the traceback of an application that has failed on standard error, as text or as the line of a record."""
    cause = error.__cause__
    if cause is None:
        return
    if settings.log_format == "json":
        line = _json_line(logging.ERROR, str(error), (type(cause), cause, cause.__traceback__))
        sys.stderr.write(line + "\n")
    else:
        traceback.print_exception(cause)


def _json_line(level: int, message: str, exception: Any = None) -> str:
    return JsonFormatter().format(logging.LogRecord(logger.name, level, "", 0, message, None, exception))


def log_notices(notices: Iterable[str]) -> None:
    """Log each notice as a warning."""
    for notice in notices:
        logger.warning("%s", notice)


class DefaultAccessLogger(QuietAccessLogger):
    """The access logger of ``--access-log``: its lines leave out the time where our formatters write it."""

    def __init__(self, log: logging.Logger, log_format: str) -> None:
        formatters = [handler.formatter for handler in logging.getLogger().handlers or log.handlers]
        if any(isinstance(each, TextFormatter | JsonFormatter) for each in formatters):
            log_format = log_format.replace("%t ", "") if log_format == self.LOG_FORMAT else log_format
        super().__init__(log, log_format)


class SchemeAccessLogger(DefaultAccessLogger):
    """The same, with the scheme of the request among what its records have as ``extra``."""

    def __init__(self, log: logging.Logger, log_format: str) -> None:
        super().__init__(log, log_format)
        self._adapter = _MoreExtra(self.logger, {})
        self.logger = cast("logging.Logger", self._adapter)

    def log(self, request: BaseRequest, response: StreamResponse, time: float) -> None:
        """Log a request."""
        self._adapter.more = {"scheme": request.scheme}
        super().log(request, response, time)


class _MoreExtra(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records have *more* beside the ``extra`` that they are given."""

    more: dict[str, str]

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Add it."""
        kwargs["extra"] = {**kwargs.get("extra", {}), **self.more}
        return msg, kwargs
