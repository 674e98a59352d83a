"""What can go wrong before anything is served: one sentence, the right exit code, no traceback of ours."""

from __future__ import annotations

import socket
import subprocess

import pytest
from conftest import hr_prometheus

OS_REFUSED, USAGE, FAILED = 1, 2, 3


def failure(*arguments: str, **environment: str) -> tuple[int, str]:
    """Return the exit code and the error of a command that serves nothing; nothing may be on standard output."""
    done = hr_prometheus("run", "--port", "0", *arguments, **environment)
    assert done.stdout == ""
    return done.returncode, done.stderr


SENTENCES = [
    (
        ["closes_descriptors:create_app"], FAILED,
        'Error: the application "closes_descriptors:create_app" has closed sockets that it has not opened, as os.closerange does.',
    ),
    (
        ["closes_descriptors_late:create_app"], FAILED,
        'Error: the application "closes_descriptors_late:create_app" has closed sockets that it has not opened, as os.closerange does.',
    ),
    (
        ["closes_descriptors_late:create_app", "--workers", "2"], FAILED,
        'Error: the application "closes_descriptors_late:create_app" has closed sockets that it has not opened, as os.closerange does.',
    ),
    (
        ["served:"], USAGE,
        'Error: the target "served:" is not understood. Expected "module:attribute", "path/to/file.py:attribute" '
        'or a script, "path/to/script.py".',
    ),
    (
        ["serveed:app"], USAGE,
        'Error: there is no module "serveed". Did you mean "served"? Looked in "{apps}" and on the Python path; '
        "--app-dir names another directory.",
    ),
    (
        ["package.iner.relative:app"], USAGE,
        'Error: there is no module "package.iner.relative". Looked in "{apps}" and on the Python path; '
        "--app-dir names another directory.",
    ),
    (
        ["package.inner.relatve:app"], USAGE,
        'Error: there is no module "package.inner.relatve". Did you mean "package.inner.relative"? '
        'Looked in "{apps}" and on the Python path; --app-dir names another directory.',
    ),
    (
        ["none.py:app"], USAGE,
        'Error: there is no file "none.py" (looked in "{apps}"). Expected "module:attribute", '
        '"path/to/file.py:attribute" or a script, "path/to/script.py".',
    ),
    (["served:creat_app"], USAGE, 'Error: "served" has no attribute "creat_app". Did you mean "create_app"?'),
    (
        ["factories:wants_two"], USAGE,
        'Error: "factories:wants_two" wants the arguments config, database. A factory is called with nothing, or '
        'with one list of the arguments behind "--". Give the arguments defaults, or name a function without them.',
    ),
    (["factories:wants_keyword"], USAGE, 'Error: "factories:wants_keyword" wants the arguments database.'),
    (
        ["factories:number"], USAGE,
        'Error: "factories:number" gives no aiohttp application; its value is of type int. Expected an '
        "aiohttp.web.Application, or a function which returns one.",
    ),
    (["factories:returns_nothing"], USAGE, "gives no aiohttp application; its value is None."),
    (["factories:returns_nothing_async"], USAGE, "gives no aiohttp application; its value is None."),
    (
        ["script:create_app"], USAGE,
        'Error: "script" calls web.run_app itself, so it is a script. Run it as one, without an attribute: '
        "hr-prometheus run script",
    ),
    (
        ["script_without_server.py"], USAGE,
        'Error: the script "script_without_server.py" has ended without calling web.run_app or AppRunner.setup, so '
        "hr-prometheus has served nothing. Expected a script which calls one of them, or a target with an attribute, "
        '"module:attribute". Did you mean "script_without_server.py:application"?',
    ),
    (
        ["bare_package"], USAGE,
        'Error: the package "bare_package" has no module __main__, so it cannot be run as a script. Expected a '
        'script which calls web.run_app, or a target with an attribute, "module:attribute".',
    ),
    (
        ["bare_package/json.py:app"], USAGE,
        'Error: "bare_package/json.py" is hidden by another module named "json", which is imported already. '
        "Give the file another name.",
    ),
    (["bare_package/a.b.py:app"], USAGE, 'Error: the target "bare_package/a.b.py:app" is not understood.'),
    (["runs_nothing.py"], USAGE, 'Error: "runs_nothing.py" gives no aiohttp application; its value is None.'),
    (["--app-dir", "none", "served:app"], USAGE, 'Error: --app-dir "none" is not a directory.'),
    (["--metrics-path", "/m?x=1", "served:app"], USAGE, 'Error: --metrics-path "/m?x=1" cannot be served.'),
    (["--host", "xn--\u00e4..b", "served:app"], OS_REFUSED, "it is not a host name"),
    (["--unix-path", "dangling", "served:app"], OS_REFUSED, "it is not a socket"),
    (["nothing_here"], USAGE, 'Error: there is no module "nothing_here".'),
    (["no.such.module"], USAGE, 'Error: there is no module "no.such.module".'),
    (
        ["--fixed-route", "cells=cell_id", "served:create_app"], USAGE,
        'Error: --fixed-route "cells=cell_id": the application has no route named "cells". '
        "Named routes: get_cell_neighbour, root.",
    ),
    (
        ["--fixed-route", "get_cell_neighbour=cell", "served:create_app"], USAGE,
        'Error: --fixed-route "get_cell_neighbour=cell": the route "get_cell_neighbour" has no parameter "cell". '
        'Did you mean "cell_id"? Its parameters: cell_id, direction.',
    ),
    (["--fixed-route", "cells", "served:create_app"], USAGE, 'Error: --fixed-route "cells" is not understood.'),
    (["--buckets", "2,1", "served:create_app"], USAGE, 'Error: --buckets "2,1": invalid buckets.'),
    (["--metric-prefix", "9", "served:create_app"], USAGE, 'Error: --metric-prefix "9" cannot begin'),
    (["--metrics-path", "metrics", "served:app"], USAGE, 'Error: --metrics-path "metrics" cannot be served.'),
    (
        ["--port", "8123", "--metrics-port", "8123", "served:app"], USAGE,
        "Error: --metrics-port 8123 is the application's port. Choose another one, or leave the option out to "
        "serve the metrics on the application's port at /metrics.",
    ),
    (["--keyfile", "key.pem", "served:app"], USAGE, "Error: --keyfile was given without --certfile."),
    (
        ["--monitor", "monitors:Unrelated", "served:app"], USAGE,
        'Error: --monitor "monitors:Unrelated" is not a monitor. Expected a class that inherits '
        "hr_prometheus.monitors.BaseRequestMonitor.",
    ),
    (["--monitor", "monitors:Sen", "served:app"], USAGE, 'Error: --monitor: "monitors" has no attribute "Sen". Did you mean "Seen"?'),
    (["--monitor", "monitors", "served:app"], USAGE, 'Error: --monitor "monitors" is not a monitor.'),
    (
        ["instrumented:path_taken"], USAGE,
        'Error: the application serves "/metrics" itself (the handler hello). Serve the metrics elsewhere: '
        "--metrics-path /hr-metrics, or --metrics-port 9100 for a port of their own.",
    ),
    (
        ["instrumented:name_taken"], USAGE,
        'Error: the application already has a metric named "request_count". Give the metrics of hr-prometheus a '
        'prefix of their own: --metric-prefix myapp_.',
    ),
    *(
        (
            [option, "instrumented:client_name_taken"], USAGE,
            'the application already has a metric named "client_request_count", which outgoing calls need. '
            "Give yours another name, or measure no outgoing calls.",
        )
        for option in ("--client-metrics", "--client-metrics=all")
    ),
    (
        ["--certfile", "none.pem", "served:app"], OS_REFUSED,
        'Error: --certfile "none.pem": No such file or directory. Expected a certificate chain in PEM '
        "format.",
    ),
    (["--certfile", "served.py", "served:app"], USAGE, 'Error: --certfile "served.py" is not a certificate.'),
    (["--host", "192.0.2.1", "served:app"], OS_REFUSED, "this machine has no such address."),
    (["--unix-path", "none/socket", "served:app"], OS_REFUSED, "is not a directory that can be written to"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "sentence"), SENTENCES)
def test_one_sentence(arguments, code, sentence):
    """What was wrong, what was expected, how to repair it; and nothing else."""
    from conftest import APPS

    status, error = failure(*arguments)
    assert sentence.format(apps=APPS) in error
    assert error.count("\n") == 1, error
    assert status == code


OWN_FAILURES = [
    (
        "raises_on_import:app", "raises_on_import.py",
        'Error: "raises_on_import" failed while it was imported: RuntimeError: no configuration',
    ),
    (
        "missing_dependency:app", "missing_dependency.py",
        'Error: "missing_dependency" failed while it was imported: ModuleNotFoundError: No module named '
        "'a_package_that_nobody_has'",
    ),
    ("bad_syntax:app", "bad_syntax.py", 'Error: "bad_syntax" failed while it was imported: SyntaxError:'),
    (
        "factories:raises", "factories.py",
        'Error: "factories:raises" failed while it made the application: RuntimeError: no database',
    ),
    (
        "factories:raises_async", "factories.py",
        'Error: "factories:raises_async" failed while it made the application: RuntimeError: no database',
    ),
    ("raises_on_import.py", "raises_on_import.py", 'Error: "raises_on_import.py" failed: RuntimeError'),
]  # fmt: skip


@pytest.mark.parametrize(("target", "frame", "sentence"), OWN_FAILURES)
def test_the_applications_own_failure(target, frame, sentence):
    """Its traceback is shown, without our frames or those of the machinery, and one sentence."""
    status, error = failure(target)
    assert sentence in error
    assert frame in error
    assert "hr_prometheus/" not in error
    assert "importlib" not in error
    assert "runpy" not in error
    assert "asyncio" not in error
    assert error.count("Traceback") <= 1
    assert status == FAILED


@pytest.mark.parametrize(("target", "status"), [("factories:exits", 0), ("factories:helps", 2)])
def test_an_application_may_exit_by_itself(target, status):
    """A factory that ends the program, as argparse does, is obeyed."""
    assert failure(target)[0] == status


def test_a_failing_start_up():
    """The application's traceback, one sentence, exit code 3."""
    done = hr_prometheus("run", "--port", "0", "starting:startup_fails")
    assert done.returncode == FAILED
    assert done.stdout == "the application starts up\n"
    assert 'Error: the application "starting:startup_fails" failed while it started up: ConnectionRefusedError' in (
        done.stderr
    )
    assert "hr_prometheus/" not in done.stderr


@pytest.mark.parametrize("option", ["--port", "--metrics-port"])
def test_a_used_port_is_found_before_the_application_starts(option):
    """Nothing of the application has run, not even its import."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, error = failure(option, port, "raises_on_import:app")
    assert error == (
        f"Error: cannot listen on 127.0.0.1:{port}: another process uses it. Stop that process or choose another "
        "port; port 0 picks a free one.\n"
    )
    assert status == OS_REFUSED


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "served:app", "--prot", "1"], "No such option"),
        (["run"], "Missing argument 'TARGET'"),
        (
            ["run", "served:app", "--port", "many"],
            'for --port "many": expected a whole number from 0 to 65535, for example 8080.',
        ),
        (["run", "served:app", "--port", "70000"], '--port "70000": expected a whole number from 0 to 65535'),
        (["walk"], "No such command"),
    ],
)
def test_wrong_usage(arguments, words):
    """Click says what is wrong with a flag, with exit code 2."""
    done = hr_prometheus(*arguments)
    assert words in done.stderr
    assert done.returncode == USAGE


def test_no_colour_where_there_is_no_terminal():
    """Escape sequences are for terminals."""
    assert "\033" not in failure("served:")[1]


def test_wrong_environment():
    """A variable is checked like its option."""
    done = hr_prometheus("run", "served:app", HR_PROMETHEUS_PORT="many")
    assert done.returncode == USAGE
    assert (
        "HR_PROMETHEUS_PORT" in done.stderr
        or 'for --port "many": expected a whole number from 0 to 65535, for example 8080.' in done.stderr
    )
    assert isinstance(done, subprocess.CompletedProcess)
