"""An error quotes what was typed and where, and says how to repair it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
import urllib.error
import urllib.request

import click
import pytest
from conftest import hr_prometheus, read_line

from hr_prometheus.commands.group import cli

OS_REFUSED, USAGE = 1, 2


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    """A directory with certificates and keys, good and bad."""
    directory = tmp_path_factory.mktemp("a directory with spaces")

    def openssl(*arguments):
        subprocess.run([shutil.which("openssl"), *arguments], cwd=directory, check=True, capture_output=True)

    for name in ("", "other-"):
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
            "-subj", "/CN=localhost", "-keyout", f"{name}key.pem", "-out", f"{name}certificate.pem",
        )  # fmt: skip
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=x", "-keyout", "rsa-key.pem")
    openssl("pkey", "-in", "key.pem", "-aes128", "-passout", "pass:x", "-out", "encrypted-key.pem")
    (directory / "text.pem").write_text("hello\n")
    (directory / "broken-key.pem").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    certificate = (directory / "certificate.pem").read_text()
    (directory / "both-encrypted.pem").write_text(certificate + (directory / "encrypted-key.pem").read_text())
    return directory


@pytest.mark.parametrize(
    ("files", "code", "at", "words"),
    [
        (["text.pem"], USAGE, "certfile", " is not a certificate."),
        (["key.pem", "key.pem"], USAGE, "certfile", " is not a certificate."),
        (
            ["certificate.pem"],
            USAGE,
            "certfile",
            " has a certificate and no private key. Give the file of the key ",
        ),
        (["certificate.pem", "text.pem"], USAGE, "keyfile", " has no private key."),
        (["certificate.pem", "broken-key.pem"], USAGE, "keyfile", ": the private key is refused"),
        (
            ["certificate.pem", "other-key.pem"],
            USAGE,
            "keyfile",
            ": the private key does not belong to the certificate in ",
        ),
        (
            ["certificate.pem", "rsa-key.pem"],
            USAGE,
            "keyfile",
            ": the private key does not belong to the certificate in ",
        ),
        (["certificate.pem", "encrypted-key.pem"], USAGE, "keyfile", ": the private key is encrypted."),
        (["both-encrypted.pem"], USAGE, "certfile", ": the private key is encrypted."),
        (["none.pem", "key.pem"], OS_REFUSED, "certfile", ": No such file or directory."),
        (["certificate.pem", "none.pem"], OS_REFUSED, "keyfile", ": No such file or directory."),
        (["certificate.pem", "."], OS_REFUSED, "keyfile", ": Is a directory."),
    ],
)
def test_each_fault_of_a_certificate_has_its_sentence(pem, files, code, at, words):
    """It names the file that is at fault, and a fault of its content is wrong usage."""
    files = {name: str(pem / file) for name, file in zip(("certfile", "keyfile"), files, strict=False)}
    options = [word for name, path in files.items() for word in (f"--{name}", path)]
    done = hr_prometheus("run", "served:app", "--port", "0", *options)
    assert done.stderr.startswith(f'Error: --{at} "{files[at]}"{words}'), done.stderr
    assert (done.returncode, done.stderr.count("\n")) == (code, 1)


NUMBERS = [
    (name, option)
    for name, command in cli.commands.items()
    for option in command.params
    if isinstance(option.type, click.IntRange | click.FloatRange | type(click.INT) | type(click.FLOAT))
]


@pytest.mark.parametrize("value", ["http", "500ms", "-1", "nan", "inf"])
@pytest.mark.parametrize(("name", "option"), NUMBERS, ids=[f"{name}-{option.name}" for name, option in NUMBERS])
def test_a_number_that_is_none(name, option, value):
    """Every option that takes a number quotes what was typed and gives an example, which is one."""
    with pytest.raises(click.BadParameter) as caught:
        cli.commands[name].make_context(name, [option.opts[-1], value, "a:b"])
    message = caught.value.format_message()
    match = re.fullmatch(
        rf'Invalid value for {option.opts[-1]} "{value}": expected a (whole number|number of seconds), .*for example (.*)\.',
        message.replace("whole number from", "whole number, from"),
    )
    assert match, message
    assert option.type.convert(match[2], option, None) == float(match[2])


@pytest.mark.parametrize(("name", "option"), NUMBERS, ids=[f"{name}-{option.name}" for name, option in NUMBERS])
def test_the_word_for_a_number(name, option):
    """The help has one that people use."""
    assert option.metavar in {"PORT", "N", "SECONDS"}


def test_there_are_numbers_to_test():
    """The list above finds what it is for, in every command."""
    assert len(NUMBERS) > 9
    assert {
        ("run", "port"),
        ("rules", "least_requests"),
        ("routes", "max_series"),
        ("scrape-config", "metrics_port"),
    } <= {(name, option.name) for name, option in NUMBERS}


@pytest.mark.parametrize(
    ("command", "variable", "value", "sentence"),
    [
        (
            "run", "FIXED_ROUTE", "get_cell_neighbour=cell_id,health=x",
            ' (values are separated by spaces): the route "get_cell_neighbour" has no parameter "health=x".',
        ),
        ("run", "FIXED_ROUTE", "* nonsense", " (values are separated by spaces) is not understood."),
        ("run", "ALLOW_VALUES", "cells.x=y", ' (values are separated by spaces): the application has no route named "cells".'),
        (
            "run", "ALLOW_VALUES", "get_cell_neighbour.direction=up,root.x=y",
            " (values are separated by spaces) is not understood.",
        ),
        ("rules", "OBJECTIVE", "99 x=1", " (values are separated by spaces)"),
        ("run", "BUCKETS", "2,1", " (values are separated by spaces): invalid buckets."),
        ("run", "BUCKETS", "fast", " (values are separated by spaces) is not understood."),
        ("run", "METRIC_PREFIX", "9", " cannot begin a metric's name."),
        ("run", "METRICS_PATH", "x", " cannot be served."),
        ("run", "WORKERS", "many", " is not understood."),
        ("run", "KEYFILE", "key.pem", " was given without --certfile."),
        ("run", "MONITOR", "monitors:Sen", ': "monitors" has no attribute "Sen".'),
        ("run", "APP_DIR", "none", " is not a directory."),
        ("run", "HOST", "127.0.0.1:8080", " is not an address or a name alone."),
        ("run", "UNIX_MODE", "999", " is not understood."),
    ],
)  # fmt: skip
def test_a_value_from_the_environment(command, variable, value, sentence):
    """The error names the variable and its whole value."""
    options = ["--port", "0"] if command == "run" and variable != "HOST" else []
    done = hr_prometheus(command, "served:create_app", *options, **{f"HR_PROMETHEUS_{variable}": value})
    assert done.stderr.startswith(f'Error: HR_PROMETHEUS_{variable}="{value}"{sentence}'), done.stderr
    assert done.returncode == USAGE


@pytest.mark.parametrize(
    ("typed", "variable", "value", "other"),
    [
        (
            ["--fixed-route", "get_cell_neighbour=direction"],
            "ALLOW_VALUES",
            "get_cell_neighbour.direction=up",
            "--fixed-route",
        ),
        (
            ["--allow-values", "get_cell_neighbour.direction=up"],
            "FIXED_ROUTE",
            "get_cell_neighbour=direction",
            "HR_PROMETHEUS_FIXED_ROUTE",
        ),
    ],
)
def test_a_contradiction_between_an_option_and_a_variable(typed, variable, value, other):
    """Each of the two is named as it was typed."""
    done = hr_prometheus("run", "served:app", "--port", "0", *typed, **{f"HR_PROMETHEUS_{variable}": value})
    assert done.stderr.endswith(f" Remove it there or from {other}.\n"), done.stderr
    assert done.returncode == USAGE


@pytest.mark.parametrize("command", ["run", "routes", "dashboard", "rules"])
def test_a_label_that_clients_would_fill(command):
    """Of several labels the wrong one is quoted as it was typed, and the sentence says why it needs a list."""
    labels = "--label", "team=const:shop", "--label", "client=header:X-Client"
    done = hr_prometheus(command, "served:create_app", *labels)
    assert done.stderr == (
        'Error: --label "client=header:X-Client" has no list of values. Clients choose what they send, so the number of series '
        "would have no bound. Expected, for example, client=header:X-Client=web,ios.\n"
    )
    assert done.returncode == USAGE


@pytest.mark.parametrize("command", ["run", "routes", "dashboard", "rules"])
def test_a_method_in_small_letters(command):
    """A method that no request can have is refused by each command that takes it."""
    done = hr_prometheus(command, "served:create_app", "--exclude-method", "OPTIONS", "--exclude-method", "get")
    sentence = '--exclude-method "get" is not understood. Expected methods in capitals, for example OPTIONS.'
    assert (done.returncode, done.stderr) == (USAGE, f"Error: {sentence}\n")


@pytest.mark.parametrize("option", [each for each in cli.commands["run"].params if isinstance(each.type, click.Choice)])
def test_a_choice_from_the_environment(option):
    """So does one of click's own errors."""
    done = hr_prometheus("run", "served:app", **{option.envvar: "nonsense"})
    is_list = " (values are separated by spaces)" * option.multiple
    assert f'Invalid value for {option.envvar}="nonsense"{is_list}: ' in done.stderr


def test_an_address_from_the_environment():
    """What the operating system refuses is followed by the variable."""
    done = hr_prometheus("run", "served:app", "--port", "0", HR_PROMETHEUS_HOST="no.such.name.invalid")
    assert done.stderr.endswith('(HR_PROMETHEUS_HOST="no.such.name.invalid")\n')


def test_a_bound_from_the_environment():
    """The variable is named as well where a number of ours is greater than the bound."""
    done = hr_prometheus("routes", "served:create_app", HR_PROMETHEUS_MAX_SERIES="3")
    assert ' series, and HR_PROMETHEUS_MAX_SERIES="3" is 3. ' in done.stderr
    assert done.returncode == 4


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_of_several_values_the_wrong_one_is_quoted(workers):
    """As it was typed, in one process and from a worker."""
    options = ["--fixed-route", "get_cell_neighbour=direction", "--fixed-route", "get_cell_neighbour= zz ,cell_id"]
    done = hr_prometheus("run", "served:create_app", "--port", "0", *options, *workers)
    assert done.stderr.startswith('Error: --fixed-route "get_cell_neighbour= zz ,cell_id": '), done.stderr
    assert done.returncode == USAGE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["served:app"], 'No such command "served:app". Did you mean: {} run served:app?'),
        (["served.py", "--port", "0"], 'No such command "served.py". Did you mean: {} run served.py?'),
        (["ruls"], 'No such command "ruls". Did you mean "rules"?'),
        (["served"], 'No such command "served". Did you mean: {} run served?'),
        (["package"], 'No such command "package". Did you mean: {} run package?'),
        (["my app.py:app"], "Did you mean: {} run 'my app.py:app'?"),
        (["bare_package"], 'No such command "bare_package".\n'),
        (["zzz"], 'No such command "zzz".\n'),
    ],
)
def test_a_command_that_is_none(arguments, words):
    """The nearest command is named, or the one that a target belongs to."""
    done = hr_prometheus(*arguments)
    assert words.format("python -m hr_prometheus") in done.stderr
    assert done.returncode == USAGE


FOREIGN = """
class Asgi:
    async def __call__(self, scope, receive, send):
        pass

class Wsgi:
    def __call__(self, environ, start_response):
        return []

class Framework:
    def wsgi_app(self, *arguments):
        return []

    def __call__(self, *arguments):
        return []

async def asgi_function(scope, receive, send):
    pass

async def make_asgi():
    return Asgi()

asgi, wsgi, framework = Asgi(), Wsgi(), Framework()
"""


@pytest.mark.parametrize(
    ("attribute", "words"),
    [
        ("asgi", "an ASGI"), ("Asgi", "an ASGI"), ("asgi_function", "an ASGI"), ("make_asgi", "an ASGI"),
        ("wsgi", "a WSGI"), ("framework", "a WSGI"),
    ],
)  # fmt: skip
def test_an_application_of_another_interface(tmp_path, attribute, words):
    """It is named, and what hr-prometheus serves."""
    (tmp_path / "foreign.py").write_text(FOREIGN)
    done = hr_prometheus("run", "--app-dir", str(tmp_path), "--port", "0", f"foreign:{attribute}")
    expected = f'Error: "foreign:{attribute}" is {words} application; hr-prometheus serves aiohttp applications.\n'
    assert (done.stderr, done.returncode) == (expected, USAGE)


FACTORY = "from aiohttp import web\n\ndef {}:\n    return web.Application()\n"


@pytest.mark.parametrize(
    ("code", "attribute"),
    [
        (FACTORY.format("create_app()"), "create_app"),
        (FACTORY.format("service() -> web.Application"), "service"),
        ("from aiohttp import web\nserved = web.Application()\n", "served"),
        ("x = 1\n", None),
    ],
)
@pytest.mark.parametrize("place", ["shop/app.py", "shop/__init__.py"])
def test_a_module_without_its_attribute(tmp_path, place, code, attribute):
    """A script that serves nothing, and a package that is none, name the attribute which seems to be meant."""
    (tmp_path / "shop").mkdir()
    (tmp_path / place).write_text(code)
    module = "shop.app" if place.endswith("app.py") else "shop"
    done = hr_prometheus("run", "--app-dir", str(tmp_path), "--port", "0", module)
    assert done.returncode == USAGE
    assert ("Did you mean" in done.stderr) == (attribute is not None)
    assert attribute is None or done.stderr.endswith(f' Did you mean "{module}:{attribute}"?\n')


@pytest.mark.parametrize("typed", ["shop:app", "shop.app", "shop.create_app", "shop.py:app", "shop.create_app:app"])
def test_an_attribute_or_a_module_that_does_not_exist(tmp_path, typed):
    """The application or factory that the module has is named."""
    (tmp_path / "shop.py").write_text(FACTORY.format("create_app()"))
    target = f"{tmp_path}/{typed}" if ".py" in typed else typed
    done = hr_prometheus("run", "--app-dir", str(tmp_path), "--port", "0", target)
    module = f"{tmp_path}/shop.py" if ".py" in typed else "shop"
    assert f' Did you mean "{module}:create_app"?' in done.stderr, done.stderr
    assert done.returncode == USAGE


def test_a_monitor_that_does_not_exist():
    """No application is taken for one."""
    done = hr_prometheus("run", "served:app", "--port", "0", "--monitor", "served:monitor")
    assert done.stderr == 'Error: --monitor: "served" has no attribute "monitor".\n'


def test_parentheses():
    """A factory is named, not called."""
    done = hr_prometheus("run", "served:create_app()")
    assert 'has parentheses. Leave them out: "served:create_app".' in done.stderr


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]])
def test_paths_with_spaces(serve, pem, workers):
    """A target, a directory to import from, a socket and a certificate may have spaces in their paths."""
    directory = pem / "my services"
    directory.mkdir(exist_ok=True)
    (directory / "my-first app.py").write_text("import beside\n" + FACTORY.format("create_app()"))
    (directory / "beside.py").write_text("")
    options = ["--certfile", str(pem / "certificate.pem"), "--keyfile", str(pem / "key.pem")]
    path = str(directory / "a socket")
    serve(f"{directory}/my-first app.py:create_app", "--unix-path", path, *options, *workers).stop()
    (directory / "app.py").write_text(FACTORY.format("create_app()"))
    serve("app:create_app", "--app-dir", str(directory), "--port", "0", *workers).stop()


def test_a_command_in_a_message_can_be_pasted(serve, tmp_path):
    """It is quoted for the shell."""
    (tmp_path / "my app.py").write_text(
        "from aiohttp import web\napp = web.Application()\napp.router.add_view('/{id}', web.View)\n"
    )
    target = f"{tmp_path}/my app.py:app"
    err = serve(target, "--port", "0", "--exclude", "x").stop()[2]
    assert err.count(f"ee: hr-prometheus routes '{target}'\n") == 2
    (tmp_path / "my script.py").write_text("from aiohttp import web\nweb.run_app(web.Application())\n")
    err = hr_prometheus("run", f"{tmp_path}/my script.py:app", "--port", "0").stderr
    assert err.endswith(f": hr-prometheus run '{tmp_path}/my script.py'\n")


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
@pytest.mark.parametrize(("mode", "from_environment"), [("660", False), ("0o600", True), ("0777", False)])
def test_the_mode_of_a_unix_socket(serve, tmp_path, workers, mode, from_environment):
    """--unix-mode, and its variable, are the permissions of the socket; it still serves, and is removed."""
    path = str(tmp_path / "socket")
    options = [] if from_environment else ["--unix-mode", mode]
    environment = {"HR_PROMETHEUS_UNIX_MODE": mode} if from_environment else {}
    service = serve("served:app", "--unix-path", path, *options, *workers, **environment)
    assert stat.S_IMODE(os.stat(path).st_mode) == int(mode.removeprefix("0o"), 8)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert b"200 OK" in client.recv(100)
    service.stop()
    assert not os.path.exists(path)


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]])
def test_the_access_log(serve, tmp_path, workers):
    """A request is a line with one time, and a scrape is none."""
    service = serve("served:app", "--port", "0", "--access-log", *workers)
    for path in ("/metrics", "/missing", "/metrics"):
        try:
            with urllib.request.urlopen(service.url + path):
                pass
        except urllib.error.HTTPError as error:
            error.close()
    _, _, err = service.stop()
    (line,) = [line for line in err.splitlines() if "aiohttp.access" in line]
    name = r"aiohttp.access \(worker 0\)" if workers else "aiohttp.access"
    assert re.match(rf'\d{{4}}-\d\d-\d\d \S+ INFO {name}: 127.0.0.1 "GET /missing HTTP/1.1" 404 ', line), line


def test_a_prefix_without_an_underscore(serve):
    """It is accepted, with one line that says what comes of it."""
    for workers in ([], ["--workers", "2"]):
        service = serve("served:app", "--port", "0", "--metric-prefix", "shop", *workers)
        _, _, err = service.stop()
        warning = 'Warning: --metric-prefix "shop": the metrics are named "shoprequest_latency" and so on. Did you mean "shop_"?\n'
        assert err.count("Warning:") == err.count(warning) == 1
    service = serve("served:app", "--port", "0", "--metric-prefix", "shop_")
    assert "Warning" not in service.stop()[2]


def test_the_version():
    """-V is --version."""
    assert hr_prometheus("-V").stdout == hr_prometheus("--version").stdout != ""


def warnings(service):
    """Stop a service when its application, which prints, can be reached; return what was written to standard error."""
    while not service.announcement.startswith("hr-prometheus: "):
        service.announcement = read_line(service.process)
    return service.stop()[2]


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]])
@pytest.mark.parametrize("typed", [["--fixed-route", "lat=x"], ["--allow-values", "lat.x=1,2"]])
def test_a_policy_that_fits_no_route_of_the_start_up(serve, workers, typed):
    """The warning quotes the option as it was typed, in one process and in a worker; the command routes says the same."""
    words = '{} "{}": the application has no route named "lat". '.format(*typed)
    assert words in warnings(serve("starting:works", "--port", "0", *typed, *workers))
    assert words in hr_prometheus("routes", "starting:works", *typed).stderr


@pytest.mark.parametrize(
    ("variable", "value"), [("FIXED_ROUTE", "lat=x get_cell=*"), ("ALLOW_VALUES", "lat.x=1,2 lat.y=3")]
)
def test_a_policy_from_the_environment_that_fits_no_route_of_the_start_up(serve, variable, value):
    """The warning quotes the variable with its whole value, and comes once, however many workers there are."""
    given = {f"HR_PROMETHEUS_{variable}": value}
    words = f'HR_PROMETHEUS_{variable}="{value}" (values are separated by spaces): the application has no route named "lat". '
    for workers in ([], ["--workers", "2"]):
        err = warnings(serve("starting:works", "--port", "0", *workers, **given))
        assert err.count(words) == err.count("no route named") == 1, err
    assert words in hr_prometheus("routes", "starting:works", **given).stderr
