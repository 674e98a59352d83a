"""The options for what is watched, and how it is reached: each is a decorator, with the name of the option."""

from __future__ import annotations

import click

from hr_prometheus.commands.parameters import output_option
from hr_prometheus.commands.types import FilePath, Seconds
from hr_prometheus.status.rate_table import SORT_KEYS

interval = output_option(
    "--interval",
    type=Seconds(least=0.2, example=1),
    metavar="SECONDS",
    default=1,
    show_default=True,
    help="Time between two scrapes, at least 0.2. A longer one suits a server with few requests.",
)
sort = output_option(
    "--sort",
    type=click.Choice(SORT_KEYS),
    default=SORT_KEYS[0],
    show_default=True,
    help="What comes first: the highest value of a column, or paths in their order.",
)
once = output_option("--once", is_flag=True, help="Print one table and end, on a terminal, too.")
token_file = output_option(
    "--token-file",
    type=FilePath(),
    metavar="FILE",
    help="File with the token that the server asks for: Authorization: Bearer TOKEN.",
)
password_file = output_option(
    "--password-file",
    type=FilePath(),
    metavar="FILE",
    help="File with the password of the user in URL, user@host: it is seen in no list of processes.",
)
cert_file = output_option(
    "--cert-file", type=FilePath(), metavar="FILE", help="Certificate (PEM) of this client, if the server asks for one."
)
key_file = output_option(
    "--key-file",
    type=FilePath(),
    metavar="FILE",
    help="Private key of that certificate, if it is in a file of its own.",
)
ca_file = output_option(
    "--ca-file",
    type=FilePath(),
    metavar="FILE",
    help="Certificates (PEM) that the server's must come from, instead of the system's.",
)
