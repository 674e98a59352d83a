"""The options for where and how an application is served: each is a decorator, with the name of the option."""

from __future__ import annotations

import click

from hr_prometheus.commands.parameters import development_option, server_option, workers_option
from hr_prometheus.commands.types import FilePath, PathPattern, Seconds, WholeNumber
from hr_prometheus.server.loops import LOOPS
from hr_prometheus.settings import (
    DEFAULT_BACKLOG,
    DEFAULT_BOOT_TIMEOUT,
    DEFAULT_HOST,
    DEFAULT_KEEPALIVE_TIMEOUT,
    DEFAULT_LOG_FORMAT,
    DEFAULT_LOG_LEVEL,
    DEFAULT_PORT,
    DEFAULT_SHUTDOWN_TIMEOUT,
    DEFAULT_WORKER_TIMEOUT,
)
from hr_prometheus.written_forms import parse_access_log_format, parse_mode, parse_trusted_peers, parse_workers

host = server_option(
    "-H", "--host", metavar="HOST", show_default=DEFAULT_HOST, help="Address or name to listen on; 0.0.0.0 for all."
)
port = server_option(
    "-P",
    "--port",
    type=WholeNumber(0, 65535, example=DEFAULT_PORT),
    metavar="PORT",
    show_default=str(DEFAULT_PORT),
    help="Port to listen on; 0 picks a free one and prints it.",
)
unix_path = server_option(
    "-U",
    "--unix-path",
    type=FilePath(),
    metavar="PATH",
    help="Unix socket to listen on: instead of a port, or as well if --host or --port is given.",
)
unix_mode = server_option(
    "--unix-mode",
    metavar="MODE",
    parse=parse_mode,
    help="Permissions of the Unix socket, in octal digits, such as 660; by default those that the umask leaves.",
)
fd = server_option(
    "--fd",
    "fds",
    type=WholeNumber(0, example=3),
    multiple=True,
    metavar="N",
    help="Serve on the socket that this process has inherited as descriptor N, instead of an address. Repeatable.",
)
backlog = server_option(
    "--backlog",
    type=WholeNumber(1, 65535, example=DEFAULT_BACKLOG),
    metavar="N",
    show_default=str(DEFAULT_BACKLOG),
    help="Connections that may wait to be accepted.",
)
reuse_port = server_option(
    "--reuse-port/--no-reuse-port", default=None, help="Let other processes listen on the same port (SO_REUSEPORT)."
)
shutdown_timeout = server_option(
    "--shutdown-timeout",
    type=Seconds(example=DEFAULT_SHUTDOWN_TIMEOUT),
    metavar="SECONDS",
    show_default=f"{DEFAULT_SHUTDOWN_TIMEOUT:g}",
    help="How long a stop waits for requests in progress, in all.",
)
keepalive_timeout = server_option(
    "--keepalive-timeout",
    type=Seconds(example=DEFAULT_KEEPALIVE_TIMEOUT),
    metavar="SECONDS",
    show_default=f"{DEFAULT_KEEPALIVE_TIMEOUT:g}",
    help="How long an idle connection stays open.",
)
handler_cancellation = server_option(
    "--handler-cancellation/--no-handler-cancellation",
    default=None,
    show_default="no-handler-cancellation",
    help="Cancel the handler of a client that leaves; without it the handler continues to its end.",
)
access_log = server_option(
    "--access-log/--no-access-log",
    default=None,
    show_default="where it has a format",
    help="Log a line for each request.",
)
access_log_format = server_option(
    "--access-log-format",
    metavar="FORMAT",
    parse=parse_access_log_format,
    help="What a line of the access log has, in aiohttp's fields: '%a \"%r\" %s %Tf'. Switches the access log on, unless "
    "--no-access-log is given as well.",
)
forwarded_allow_ips = server_option(
    "--forwarded-allow-ips",
    multiple=True,
    metavar="PEER[,PEER...]",
    parse=parse_trusted_peers,
    help="Proxies whose X-Forwarded-For and X-Forwarded-Proto say who the client is, in the access log only: the application's "
    "request is never changed. Addresses, networks, unix for the peers of Unix sockets, or * for all. Repeatable.",
)
log_level = server_option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    show_default=DEFAULT_LOG_LEVEL,
    help="Least level that is logged.",
)
log_format = server_option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    show_default=DEFAULT_LOG_FORMAT,
    help="Lines for people, or a line of JSON for each record.",
)
log_config = server_option(
    "--log-config",
    type=FilePath(),
    metavar="FILE",
    help="Set up logging by this file, for logging.config.dictConfig: JSON, or TOML in a file that ends with .toml.",
)
loop = server_option(
    "--loop",
    type=click.Choice(LOOPS),
    show_default="auto",
    help="Event loop; auto is uvloop if that is installed (the extra uvloop), else asyncio.",
)
certfile = server_option(
    "--certfile", type=FilePath(), metavar="FILE", help="Certificate chain in PEM format; serves HTTPS."
)
keyfile = server_option(
    "--keyfile", type=FilePath(), metavar="FILE", help="Private key of the certificate, if it is in a file of its own."
)
pid_file = server_option(
    "--pid-file",
    type=FilePath(),
    metavar="FILE",
    help="Keep the process ID in this file, from before the application is imported until the stop. A second process with "
    "the same file is refused.",
)

# -- more than one process

workers = workers_option(
    "-w",
    "--workers",
    metavar="N|auto",
    parse=parse_workers,
    takes_numbers=True,
    show_default="one process, without a supervisor",
    help="Serve with N processes, which a supervisor keeps running; auto is one for each processor.",
)
worker_timeout = workers_option(
    "--worker-timeout",
    type=Seconds(example=DEFAULT_WORKER_TIMEOUT),
    metavar="SECONDS",
    show_default=f"{DEFAULT_WORKER_TIMEOUT:g}",
    help="Replace a worker whose event loop has been blocked for this long; 0 never does.",
)
boot_timeout = workers_option(
    "--boot-timeout",
    type=Seconds(example=DEFAULT_BOOT_TIMEOUT),
    metavar="SECONDS",
    show_default=f"{DEFAULT_BOOT_TIMEOUT:g}",
    help="Kill a worker that has not started within this time, and try again; 0 never does.",
)
max_requests = workers_option(
    "--max-requests",
    type=WholeNumber(1, example=10000),
    metavar="N",
    help="Replace a worker after N requests and up to a tenth more, drawn at random.",
)

# -- development

reload = development_option(
    "--reload/--no-reload",
    default=False,
    help="Restart the application when one of its files changes. Connections wait meanwhile.",
)
reload_dir = development_option(
    "--reload-dir",
    "reload_dirs",
    type=FilePath(),
    multiple=True,
    metavar="DIRECTORY",
    help="Watch the files below this directory, too, beside those of the target's package and of --app-dir. Repeatable.",
)
reload_include = development_option(
    "--reload-include",
    type=PathPattern(),
    multiple=True,
    metavar="PATTERN",
    help="Watch files that match this shell pattern, too, beside *.py: '*.html'. Repeatable.",
)
reload_exclude = development_option(
    "--reload-exclude",
    type=PathPattern(),
    multiple=True,
    metavar="PATTERN",
    help="Do not watch files and directories that match this shell pattern: tests, 'static/*.py'. Repeatable.",
)
