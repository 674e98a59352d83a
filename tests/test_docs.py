"""The README and the manual say what the program does: their tables, their code, their error messages."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click
import pytest
from conftest import counts, hr_prometheus, samples
from manual import DOCS, MANUAL, PAGES, README, ROOT, TUTORIAL, blocks, sentences_of
from messages_in_the_code import REPAIR, advice_on_the_page, table_of
from prometheus_client import CollectorRegistry

from hr_prometheus.commands.group import cli
from hr_prometheus.labels.methods import UNKNOWN
from hr_prometheus.labels.policies import OTHER
from hr_prometheus.labels.resources import MALFORMED, UNMATCHED
from hr_prometheus.metrics import DETAILS, METRICS
from hr_prometheus.request.incomplete import CLIENT_CLOSED_REQUEST
from hr_prometheus.request.records import Records
from hr_prometheus.request.websocket import _code_label
from hr_prometheus.workers.process import RESTART_REASONS

REFERENCE = DOCS / "reference"
SCRIPT = Path(sys.executable).with_name("hr-prometheus")
#: Code that runs the script which a user's shell runs.
BY_SCRIPT = f"import runpy\nrunpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"


def metrics_table() -> str:
    rows = ["| Metric | |", "|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "no labels"
        rows.append(f"| `{metric.exported_name}` | {metric.help}<br>{metric.type} ({metric.unit}), {labels} |")
    return "\n".join(rows)


def options_table(*commands: str) -> str:
    options = {option.name: option for command in commands or ["run"] for option in cli.commands[command].params}
    shared = {option.name for option in cli.commands["run"].params} if commands else ()
    context = click.Context(cli.commands["run"])
    rows = ["| Option | |", "|---|---|"]
    for option in options.values():
        if isinstance(option, click.Option) and option.name not in ("help", *shared):
            values = option.metavar or "|".join(getattr(option.type, "choices", [option.type.name.upper()]))
            value = "" if option.is_flag else " " + values.replace("|", r"\|")
            names = ", ".join(f"`{name}{value}`" for name in [*option.opts, *option.secondary_opts])
            default = option.show_default if isinstance(option.show_default, str) else option.get_default(context)
            # click's own value for "no default" differs between its versions.
            shown = (
                f", default `{default}`"
                if isinstance(default, str | int | float) and default not in ("", False)
                else ""
            )
            rows.append(f"| {names} | {option.help}<br>`{option.envvar}`{shown} |")
    return "\n".join(rows)


def observability_options_table() -> str:
    return options_table("dashboard", "rules", "scrape-config")


def top_options_table() -> str:
    return options_table("top")


def errors_table() -> str:
    return table_of("error")


def log_table() -> str:
    return table_of("log")


def help_of_commands() -> str:
    """Return a heading and the help for each command, as a terminal of 100 columns shows it."""
    shown = []
    for arguments in ([], *([name] for name in sorted(cli.commands))):
        done = hr_prometheus(*arguments, "--help", first=BY_SCRIPT, COLUMNS="100")
        shown.append(f"## `{' '.join(['hr-prometheus', *arguments])}`\n\n```text\n{done.stdout.rstrip()}\n```")
    return "\n\n".join(shown)


def written(pytestconfig, path: Path, name: str, text: str) -> str:
    """Return what stands on a page between the marks of a name; with --update-docs, write *text* there."""
    pattern = rf"(<!-- {re.escape(name)}(?:: [^\n]*)? -->\n).*?(\n<!-- /{name.partition(':')[0]} -->)"
    page = path.read_text()
    if pytestconfig.getoption("--update-docs"):
        path.write_text(re.sub(pattern, lambda match: match[1] + text + match[2], page, flags=re.DOTALL))
        pytest.skip(f"{path.name} was written")
    return re.search(pattern, page, re.DOTALL)[0]


@pytest.mark.parametrize(
    ("page", "name", "table"),
    [
        ("metrics", "metrics", metrics_table),
        ("options", "options", options_table),
        ("options", "observability options", observability_options_table),
        ("options", "top options", top_options_table),
        ("errors", "errors", errors_table),
        ("errors", "log lines", log_table),
    ],
)
def test_the_tables_are_those_of_the_program(pytestconfig, page, name, table):
    """Each metric, option and message has its row (--update-docs writes them)."""
    text = table()
    assert text in written(pytestconfig, REFERENCE / f"{page}.md", name, text)


def test_help_is_the_golden_one(pytestconfig):
    """--help is read by people: a change of it, for whichever command, is seen (--update-docs writes it)."""
    text = help_of_commands()
    assert text in written(pytestconfig, REFERENCE / "commands.md", "help", text)
    for name, command in cli.commands.items():
        shown = text.partition(f"## `hr-prometheus {name}`")[2].partition("\n## ")[0]
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "help":
                assert str(option.envvar) in re.sub(r"\n {20,}", "", shown)


def test_every_message_says_what_to_do():
    """The message itself, or the manual beside it."""
    for message, advice in advice_on_the_page().items():
        assert advice or REPAIR.search(message), message


FILES = [
    (page, *match.groups())
    for page, text in PAGES.items()
    for match in re.finditer(r"<!-- file: (\S+) -->\n```(\w+)\n", text)
]


@pytest.mark.parametrize(("page", "file", "language"), FILES, ids=[file for _page, file, _language in FILES])
def test_a_file_is_shown_as_it_is(pytestconfig, page, file, language):
    """The manual shows whole files of the examples (--update-docs writes them)."""
    text = f"```{language}\n{(ROOT / file).read_text()}```"
    assert text in written(pytestconfig, page, f"file: {file}", text)


SERVE_AND_SCRAPE = """
import asyncio, runpy, sys, warnings
from aiohttp.test_utils import TestClient, TestServer
warnings.simplefilter("error")
app = runpy.run_path(sys.argv[1])["app"]
async def main():
    async with TestClient(TestServer(app)) as client:
        for path in sys.argv[2:]:
            await client.get(path)
        await asyncio.sleep(0)
        print(await (await client.get("/metrics")).text())
asyncio.run(main())
sys.exit()
"""


def scrape_of(tmp_path, code: str, *paths: str) -> str:
    """Run code that makes an application ``app``, ask it for *paths*, and return what its metrics say then."""
    (tmp_path / "block.py").write_text(code)
    done = hr_prometheus(str(tmp_path / "block.py"), *paths, first=SERVE_AND_SCRAPE)
    assert done.returncode == 0, done.stderr
    return done.stdout


#: Blocks that are tests are run as such, with the plugin. Those that are files are the tutorial's.
APPLICATIONS = [code for code in blocks("python") if "def test_" not in code and not code.startswith("# ")]


@pytest.mark.parametrize("code", APPLICATIONS, ids=range(len(APPLICATIONS)))
def test_the_code_runs(tmp_path, code):
    """Each Python block makes an application which counts its requests."""
    north = "/cell_neighbour/{}/direction/north"
    counted = counts(scrape_of(tmp_path, code, "/nowhere", north.format(1948), north.format(874)))
    if "get_cell_neighbour" in code:
        assert counted["GET", north.format("{cell_id}"), "200"] == 2
        assert counted["GET", "unmatched", "404"] == 1
    else:
        assert counted == {("GET", "unmatched", "404"): 3}


CELL_VIEW = """
async def get_cell_neighbour_view(request):
    return web.json_response(dict(request.match_info))
"""


@pytest.mark.parametrize("spelling", ["fixed_routes_parameter", "fixed_routes_parameters"])
def test_the_published_grouping(tmp_path, spelling):
    """The example of the manual of 0.2.0, with its missing parts, in both spellings of the keyword."""
    code = f"""
from aiohttp import web
from hr_prometheus import hrprometheus_middleware, hrprometheus_view
{CELL_VIEW}
middleware = hrprometheus_middleware({spelling}={{"get_cell_neighbour": ["cell_id"]}})
app = web.Application(middlewares=[middleware])
app.router.add_route(
    "GET", "/cell_neighbour/{{cell_id}}/direction/{{direction}}", get_cell_neighbour_view, name="get_cell_neighbour"
)
app.router.add_get("/metrics", hrprometheus_view)
"""
    text = scrape_of(tmp_path, code, "/cell_neighbour/1948/direction/north", "/cell_neighbour/874/direction/north")
    assert counts(text) == {("GET", "/cell_neighbour/{cell_id}/direction/north", "200"): 2}


def test_the_published_quick_start(tmp_path):
    """The middleware appended to the list, as the manual of 0.2.0 has it."""
    code = """
from aiohttp import web
from hr_prometheus import hrprometheus_middleware, hrprometheus_view

app = web.Application()
app.router.add_get("/metrics", hrprometheus_view)
app.middlewares.append(hrprometheus_middleware())
"""
    scraped = samples(scrape_of(tmp_path, code, "/metrics"))
    assert scraped['request_count_total{method="GET",path="/metrics",status="200"}'] == 1
    assert scraped['request_latency_count{method="GET",path="/metrics"}'] == 1
    assert scraped['requests_in_progress{method="GET",path="/metrics"}'] == 1


def test_the_published_custom_monitor(tmp_path):
    """The example of the manual of 0.2.0, with its missing imports; its metrics are named as our own."""
    code = """
import time
from aiohttp import web
from prometheus_client import Counter, Gauge, Histogram
from hr_prometheus import hrprometheus_middleware, hrprometheus_view
from hr_prometheus.monitors import BaseRequestMonitor


class RequestMonitor(BaseRequestMonitor):
    REQUEST_COUNT = Counter("request_count", "Number of requests received", ["method", "path", "status"])
    REQUEST_LATENCY = Histogram("request_latency", "Elapsed time per request", ["method", "path"])
    REQUEST_IN_PROGRESS = Gauge("requests_in_progress", "Requests in progress", ["method", "path"])

    def update_init_metrics(self):
        self.REQUEST_IN_PROGRESS.labels(*self.request_description).inc()

    def update_end_metrics(self):
        resp_time = time.time() - self.init_time
        self.REQUEST_COUNT.labels(*self.request_description, self.response_status).inc()
        self.REQUEST_LATENCY.labels(*self.request_description).observe(resp_time)
        self.REQUEST_IN_PROGRESS.labels(*self.request_description).dec()


app = web.Application()
app.router.add_get("/metrics", hrprometheus_view)
app.middlewares.append(hrprometheus_middleware(RequestMonitor))
"""
    scraped = samples(scrape_of(tmp_path, code, "/metrics", "/nowhere"))
    assert scraped['request_count_total{method="GET",path="/metrics",status="200"}'] == 1
    assert scraped['request_count_total{method="GET",path="unmatched",status="404"}'] == 1
    assert scraped['requests_in_progress{method="GET",path="/metrics"}'] == 1


def commands_with_output() -> list[tuple[Path, str, str]]:
    """Return the commands of ours that end, each with its page and what it prints."""
    return [
        (page, *match)
        for page, text in PAGES.items()
        if page != TUTORIAL
        for block in blocks("console", text)
        for match in re.findall(r"^\$ (hr-prometheus .*)\n((?:(?!\$ ).*\n)*)", block, re.MULTILINE)
    ]


COMMANDS = commands_with_output()


@pytest.mark.parametrize(("page", "command", "output"), COMMANDS, ids=[command for _page, command, _output in COMMANDS])
def test_the_commands_print_what_the_manual_says(pytestconfig, page, command, output):
    """Each message and each table stands there as it is printed."""
    environment = {"HR_PROMETHEUS_PORT": "0"} if " run " in command else {}
    words, errors_only, _ = command.partition(" > /dev/null")
    done = hr_prometheus(*shlex.split(words)[1:], cwd=ROOT, **environment)
    printed = ("" if errors_only else done.stdout) + done.stderr
    codes = (0, 4) if " routes " in command else (2,) if output.startswith("Error: ") else (0,)
    assert done.returncode in codes or pytestconfig.getoption("--update-docs"), printed
    if pytestconfig.getoption("--update-docs"):
        page.write_text(page.read_text().replace(f"$ {command}\n{output}", f"$ {command}\n{printed}"))
        pytest.skip(f"{page.name} was written")
    assert printed == output


def test_there_are_commands_to_test():
    """The pattern above finds what it is for."""
    assert len(COMMANDS) == 9


def test_every_command_and_option_is_in_the_manual():
    """No flag is a secret, and neither is its variable."""
    for name, command in cli.commands.items():
        assert f"hr-prometheus {name}" in MANUAL
        for option in command.params:
            if isinstance(option, click.Option) and option.name != "help":
                assert f"`{option.opts[-1]}" in MANUAL, option.opts
                assert f"`{option.envvar}`" in MANUAL, option.envvar


def test_what_contributing_names_is_there():
    """Each path, file name and make target in it exists."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for path in re.findall(r"`((?:hr_prometheus|tests)/\S+)`", text):
        assert (ROOT / path).exists(), path
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in re.findall(r"(?:^|`)make ([a-z -]+)", text, re.MULTILINE):
        assert {*words.split()} <= {*targets}, words


def test_what_is_not_published_is_installed_from_a_checkout():
    """A release dates the changelog and changes the README's first command, the only one that depends on it."""
    is_released = "(unreleased)" not in re.search(r"^## .*", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    first = blocks("shell", PAGES[README])[0].splitlines()[0]
    assert first == ("pip install hr-prometheus" if is_released else "pip install .  # in a checkout")
    texts = [MANUAL, *(file.read_text() for file in (ROOT / "hr_prometheus").rglob("*.py"))]
    assert is_released or not [text for text in texts if "hr-prometheus[" in text]  # which would be an older one
    assert not (is_released and re.search(r'pip install "?\.', MANUAL))


def test_the_changelog_begins_with_this_version():
    """A release is not forgotten in the changelog."""
    from hr_prometheus import __version__

    assert re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[1] == __version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell):
    """The line in the manual gives a script for each shell; options and their values are completed."""
    if shell == "bash":
        assert 'eval "$(_HR_PROMETHEUS_COMPLETE=bash_source hr-prometheus)"' in MANUAL
    assert "_HR_PROMETHEUS_COMPLETE" in hr_prometheus(first=BY_SCRIPT, _HR_PROMETHEUS_COMPLETE=f"{shell}_source").stdout
    words = {"_HR_PROMETHEUS_COMPLETE": "zsh_complete", "COMP_WORDS": "hr-prometheus run --metrics-", "COMP_CWORD": "2"}
    assert "--metrics-port" in hr_prometheus(first=BY_SCRIPT, **words).stdout


def labels_in_the_code(pattern: str) -> set[str]:
    """Return what a pattern's group matches in the package's modules."""
    return {
        word for path in (ROOT / "hr_prometheus").rglob("*.py") for word in re.findall(pattern, path.read_text())
    }  # fmt: skip


def test_the_words_that_labels_can_be_are_in_the_manual():
    """Each value of a label that is a word of ours, and comes from no route and no client, is explained."""
    places = labels_in_the_code(r'(?:failed|report)\("([a-z]+)"') | labels_in_the_code(r'ERRORS, "([a-z]+)"')
    assert places >= {"labels", "begin", "end", "collector", "scrape"}
    paths_and_methods = {UNMATCHED, MALFORMED, UNKNOWN, OTHER}
    codes = {_code_label(code) for code in (999, 1006, 2000, 3000, 4000, 5000)}
    for word in {*places, *RESTART_REASONS} | paths_and_methods | codes - {"1006"} | {"server", "client"}:
        assert f"`{word}`" in MANUAL or f'="{word}"' in MANUAL, word
    assert "1006 without a close frame" in MANUAL
    assert 'status="other"' in MANUAL
    assert f"**{CLIENT_CLOSED_REQUEST}" in MANUAL


def test_the_series_of_a_label_are_as_many_as_the_manual_says():
    """What one more label costs, in the manual and in the help of --path-budget."""
    numbers = []
    for detail in DETAILS:
        registry = CollectorRegistry()
        record = Records(registry, detail=detail).request(("GET", "/"))
        record.begin()
        record.finish("200", 0.1)
        record.measure(0.1, 10, 10)
        numbers.append(sum(len(family.samples) for family in registry.collect()))
    basic, full = numbers
    sentences = " ".join(sentences_of(MANUAL))
    assert f"Each label costs {full} series for each method it is requested with ({basic} with" in sentences
    assert f"each label costs {full} series for each method ({basic} with" in sentences
