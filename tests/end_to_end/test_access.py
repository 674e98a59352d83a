"""Who may come to the metrics port, as a user has it: TLS, tokens, and files that change while it runs."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import urllib.error
import urllib.request

import pytest
from conftest import DEADLINE, hr_prometheus, read_line

ARGUMENTS = ("served:create_app", "--port", "0", "--metrics-port", "0", "--fixed-route", "*")
PROCESSES = pytest.mark.parametrize("workers", [(), ("--workers", "1")], ids=["one process", "workers"])
TOKEN = "3f786850e387550fdab836ed7e6dc881de23001b"  # noqa: S105


def ask(url, context=None, **headers):
    """Return the status, the headers and the text of an answer."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE, context=context) as response:
            return response.status, response.headers, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read().decode()


def status(url, context=None, **headers):
    return ask(url, context, **headers)[0]


def bearer(token):
    return {"Authorization": f"Bearer {token}"}


@PROCESSES
def test_a_token(serve, tmp_path, workers):
    """Only requests that have it are answered, whatever they ask for; the application's own port is open."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    service = serve(*ARGUMENTS, "--metrics-token-file", str(tmp_path / "token"), *workers)
    code, headers, text = ask(service.metrics_url)
    assert (code, headers["WWW-Authenticate"], text) == (401, 'Bearer realm="metrics"', "Unauthorized\n")
    right = bearer(TOKEN)
    assert "# TYPE" in ask(service.metrics_url, **right)[2]
    assert status(service.metrics_url, Authorization=f"bearer  {TOKEN}") == 200
    for wrong in (f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", "Bearer \xe4", f"Basic {TOKEN}", TOKEN, ""):
        assert status(service.metrics_url, Authorization=wrong) == 401
    port = service.metrics_url.removesuffix("/metrics")
    for path in ("/", "/-/ready", "/-/healthy", "/nowhere"):
        assert status(port + path) == 401
    assert status(f"{port}/-/ready", **right) == 200
    assert status(service.url) == 200
    code, out, err = service.stop()
    assert (code, err) == (0, "")
    assert TOKEN not in out


@PROCESSES
def test_a_token_that_changes(serve, tmp_path, workers):
    """The next request has to have the new one. One that cannot be read is an error in the log, and the old one holds."""
    file = tmp_path / "token"
    file.write_text(TOKEN)
    service = serve(*ARGUMENTS, "--metrics-token-file", str(file), *workers)
    assert status(service.metrics_url, **bearer(TOKEN)) == 200
    file.write_text("new")
    assert status(service.metrics_url, **bearer(TOKEN)) == 401
    assert status(service.metrics_url, **bearer("new")) == 200
    file.write_text("a b")
    assert status(service.metrics_url, **bearer("new")) == 200
    line = service.process.stderr.readline()
    assert f'The metrics port goes on with its earlier settings. --metrics-token-file "{file}" has more than' in line
    file.unlink()
    assert status(service.metrics_url, **bearer("new")) == 200
    assert ": No such file or directory. Expected a file with a token." in service.process.stderr.readline()
    file.write_text("newer")
    assert status(service.metrics_url, **bearer("newer")) == 200
    assert service.stop() == (0, "", "")


@PROCESSES
def test_a_certificate_that_is_replaced(serve, authority, workers):
    """Each new connection gets the current one, no scrape fails, and a pair that does not fit yet is no error."""
    certificate, key = authority.issue("server")
    service = serve(*ARGUMENTS, "--metrics-certfile", certificate, "--metrics-keyfile", key, *workers)
    assert service.metrics_url.startswith("https://127.0.0.1:")
    assert service.url.startswith("http://")
    context = authority.context()
    assert status(service.metrics_url, context) == 200
    first = ssl.get_server_certificate(address(service), ca_certs=str(authority.path))
    other_certificate, other_key = authority.issue("other")
    shutil.copy(other_certificate, certificate)
    assert status(service.metrics_url, context) == 200
    assert ssl.get_server_certificate(address(service)) == first
    os.replace(other_key, key)
    assert status(service.metrics_url, context) == 200
    with open(other_certificate, encoding="ascii") as file:
        assert ssl.get_server_certificate(address(service)) == file.read()
    assert service.stop() == (0, "", "")


def test_a_wrong_certificate_while_it_runs(serve, authority, tmp_path):
    """It is logged once, however many scrapes there are; the old one is served until there is a right one again."""
    certificate, key = authority.issue("server")
    service = serve(*ARGUMENTS, "--metrics-certfile", certificate, "--metrics-keyfile", key)
    context = authority.context()
    shutil.copy(certificate, tmp_path / "old.pem")
    shutil.copy(authority.path, certificate)
    for _ in range(3):
        assert status(service.metrics_url, context) == 200
    line = service.process.stderr.readline()
    assert f'earlier settings. --metrics-keyfile "{key}": the private key does not belong to the certificate' in line
    assert status(service.metrics_url, context) == 200
    shutil.copy(tmp_path / "old.pem", certificate)
    assert status(service.metrics_url, context) == 200
    assert service.stop() == (0, "", "")


def address(service):
    host, _, port = service.metrics_url.split("/")[2].rpartition(":")
    return host, int(port)


def test_a_client_that_speaks_no_tls(serve, authority):
    """It gets no answer, nothing is logged, and the port goes on."""
    certificate, key = authority.issue("server")
    service = serve(*ARGUMENTS, "--metrics-certfile", certificate, "--metrics-keyfile", key)
    with pytest.raises(OSError, match="reset|closed"):
        ask(service.metrics_url.replace("https", "http"))
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(service.metrics_url, ssl.create_default_context())
    assert status(service.metrics_url, authority.context()) == 200
    assert service.stop() == (0, "", "")


@pytest.mark.parametrize(
    ("version", "is_accepted"), [("tls1", False), ("tls1_1", False), ("tls1_2", True), ("tls1_3", True)]
)
def test_versions_of_tls(serve, authority, component, version, is_accepted):
    """Old ones are refused."""
    service = serve(*ARGUMENTS, "--metrics-certfile", *zip_options(authority.issue("server")))
    done = subprocess.run(
        [component("openssl"), "s_client", f"-{version}", "-cipher", "ALL:@SECLEVEL=0", "-connect",
         ":".join(map(str, address(service)))],
        input="", capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert ("Cipher is (NONE)" not in done.stdout) == is_accepted, done.stdout


def zip_options(files):
    return files[0], "--metrics-keyfile", files[1]


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (
            ["--metrics-token-file", "none"],
            1,
            '--metrics-token-file "none": No such file or directory. Expected a file',
        ),
        (["--metrics-token-file", os.devnull], 2, '--metrics-token-file "/dev/null" is empty. Expected a token'),
        (["--metrics-token-file", "served.py"], 2, '--metrics-token-file "served.py" has more than a token.'),
        (["--metrics-certfile", "none"], 1, '--metrics-certfile "none": No such file or directory.'),
        (["--metrics-certfile", "served.py"], 2, '--metrics-certfile "served.py" is no certificate.'),
        (["--metrics-keyfile", "x"], 2, "--metrics-keyfile was given without --metrics-certfile."),
    ],
)
@PROCESSES
def test_files_that_are_wrong(options, code, sentence, workers):
    """Each is one sentence, before anything is served."""
    done = hr_prometheus("run", *ARGUMENTS, *options, *workers)
    assert done.returncode == code
    assert done.stderr.startswith(f"Error: {sentence}"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("option", ["--metrics-token-file", "--metrics-certfile"])
def test_without_a_port_of_their_own(option):
    """The application's own port is the application's to protect."""
    done = hr_prometheus("run", "served:create_app", option, "x")
    assert done.stderr.startswith(f"Error: {option} was given without --metrics-port.")


def test_a_script_with_a_runner_of_its_own(serve, authority, tmp_path):
    """Its metrics port asks for the token as well."""
    (tmp_path / "token").write_text(TOKEN)
    service = serve(
        "script_with_runners.py", "--metrics-port", "0", "--metrics-token-file", str(tmp_path / "token"),
        "--metrics-certfile", *zip_options(authority.issue("server")),
    )  # fmt: skip
    service.announcement = read_line(service.process)  # the first line is the script's own
    assert status(service.metrics_url, authority.context()) == 401
    assert status(service.metrics_url, authority.context(), **bearer(TOKEN)) == 200
