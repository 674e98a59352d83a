"""Measure the costs of hr-prometheus and of its peers: ``make bench ARGS="--only overhead,scrape"``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict
from importlib.metadata import version

from measures import PARTS, Bench, Row
from peers import PEERS, install
from report import table, write_tables


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", help=f"parts, separated by commas: {', '.join(PARTS)}")
    parser.add_argument("--variants", help=f"variants, separated by commas: {', '.join(PEERS)}")
    parser.add_argument("--rounds", type=int, help="rounds of every part, instead of each part's own number")
    parser.add_argument("--long", action="store_true", help='also the part "flat": a million requests')
    parser.add_argument("--json", metavar="FILE", help="write the numbers to a file as well")
    parser.add_argument("--read", metavar="FILE", help="measure nothing: take the numbers of such a file")
    parser.add_argument(
        "--readme", action="store_true", help="write the tables of the README and of docs/explanation/costs.md"
    )
    options = parser.parse_args()
    if options.readme and (options.only or options.variants):
        parser.error("--readme: the tables are those of a whole run; leave out --only and --variants")
    options.only = _names(parser, "--only", options.only, [part for part in PARTS if part != "flat" or options.long])
    options.variants = _names(parser, "--variants", options.variants, list(PEERS))
    if options.rounds is not None and options.rounds < 1:
        parser.error(f'--rounds "{options.rounds}": expected a number from 1 on')
    return options


def _names(parser: argparse.ArgumentParser, option: str, value: str | None, defaults: list[str]) -> list[str]:
    """Return the names in an option's value, or *defaults*; exit for an unknown one."""
    names = value.split(",") if value else defaults
    for name in names:
        if name not in defaults and not (option == "--only" and name in PARTS):
            parser.error(f'{option} "{name}": expected some of {", ".join(defaults)}')
    return names


def _say(text: str) -> None:
    """Show the progress: on one line of a terminal, or once a part in a log."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
    elif ": round " not in text or ": round 1 of" in text:
        sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _missing(variants: list[str]) -> list[str]:
    """Install the environments of the variants, and return the variants for which that failed."""
    failures = {}
    for environment in dict.fromkeys(PEERS[name].environment for name in variants):
        if environment:
            _say(f"installing {environment}")
            failures[environment] = install(environment)
            if failures[environment]:
                sys.stderr.write(f"\n{environment} is not installed: {failures[environment]}\n")
    return [name for name in variants if failures.get(PEERS[name].environment)]


def _conditions() -> str:
    """Return the versions and the machine that the numbers belong to."""
    versions = [f"{name} {version(name)}" for name in ("aiohttp", "prometheus-client")]
    return f"Python {sys.version.split()[0]}, {', '.join(versions)}, {os.cpu_count()} processors"


def main() -> None:
    """Measure, print, write."""
    options = _options()
    if options.read:
        with open(options.read, encoding="utf-8") as file:
            results = json.load(file)
        rows = [Row(**row) for row in results["rows"]]
    else:
        began = time.monotonic()
        bench = Bench(options.variants, _missing(options.variants), options.rounds, _say)
        rows = [row for part in options.only for row in PARTS[part](bench)]
        _say(f"measured in {time.monotonic() - began:.0f} s\n")
        results = {"conditions": _conditions(), "rows": [asdict(row) for row in rows]}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(results, file, indent=1, ensure_ascii=False)
    if options.readme:
        write_tables(rows, results["conditions"])
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped; nothing was written.")
