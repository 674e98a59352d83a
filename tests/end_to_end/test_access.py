"""Who may come to the metrics port, as a user has it: TLS, tokens, and files that change while it runs."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from collections import Counter
from itertools import chain

import bcrypt
import pytest
import yaml
from aiohttp import ClientSession, TCPConnector
from authority import Authority
from conftest import DEADLINE, hr_prometheus, read_line, wait_for

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
        assert status(service.metrics_url, **right) == 200  # without which the next one waits
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
    assert f'The metrics port keeps its earlier settings. --metrics-token-file "{file}" has more than' in line
    file.unlink()
    assert status(service.metrics_url, **bearer("new")) == 200
    assert ": No such file or directory. Expected a file with a token." in service.process.stderr.readline()
    file.write_text("newer")
    assert status(service.metrics_url, **bearer("newer")) == 200
    assert service.stop() == (0, "", "")


@PROCESSES
@pytest.mark.parametrize("is_secure", [False, True], ids=["HTTP", "HTTPS"])
def test_credentials_in_malformed_requests(serve, authority, workers, is_secure):
    """They are not logged; there is one line about all requests of a kind."""
    files = zip(("--metrics-certfile", "--metrics-keyfile"), authority.issue("server"), strict=True)
    service = serve(*ARGUMENTS, *(chain.from_iterable(files) if is_secure else ()), *workers)
    for _ in range(3):
        with socket.create_connection(address(service), DEADLINE) as connection:
            client = (
                authority.context().wrap_socket(connection, server_hostname="localhost") if is_secure else connection
            )
            with client:
                client.sendall(
                    f"GET /metrics?token={TOKEN} HTTP/1.1x\r\nAuthorization : Bearer {TOKEN}\r\n\r\n".encode()
                )
                assert client.recv(100).startswith(b"HTTP/1.0 400 ")
    _, out, errors = service.stop()
    assert TOKEN not in out + errors
    (line,) = errors.splitlines()
    assert line.endswith("WARNING hr_prometheus: The metrics port has refused a malformed request: BadStatusLine.")


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
    """It gets no answer, the log has the reason, and the port goes on."""
    certificate, key = authority.issue("server")
    service = serve(*ARGUMENTS, "--metrics-certfile", certificate, "--metrics-keyfile", key)
    with pytest.raises(OSError, match="reset|closed"):
        ask(service.metrics_url.replace("https", "http"))
    with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
        ask(service.metrics_url, ssl.create_default_context())
    assert status(service.metrics_url, authority.context()) == 200
    code, _, log = service.stop()
    assert (code, reasons_in(log)) == (0, ["HTTP_REQUEST", "TLSV1_ALERT_UNKNOWN_CA"])


def reasons_in(log):
    """Return the reasons of failures at TLS in a log that has nothing else."""
    return re.findall(r".* A client of the metrics port has failed at the TLS handshake: (.*)\.\n", log)


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


CLIENTS = {
    "DNS": "DNS:prometheus.example",
    "IP": "IP:0:0:0:0:0:0:0:7",
    "email": "email:me@example.org",
    "URI": "URI:spiffe://example.org/prometheus",
}


@PROCESSES
def test_client_certificates(serve, authority, tmp_path, workers):
    """A client needs one of the authority, with one of the names; no other client gets an answer."""
    certificate, key = authority.issue("server")
    tls = {
        "cert_file": certificate, "key_file": key, "client_ca_file": "ca.pem", "client_auth_type": "RequireAndVerifyClientCert",
        "client_allowed_sans": ["prometheus.example", "::7", "me@example.org", "spiffe://example.org/prometheus"],
    }  # fmt: skip
    config = write_config(tmp_path / "web.yml", [], tls_server_config=tls)
    service = serve(*ARGUMENTS, "--metrics-web-config", config, *workers)
    for kind, name in CLIENTS.items():
        assert status(service.metrics_url, authority.context(*authority.issue(kind, name))) == 200
    stranger = Authority(shutil.which("openssl"), tmp_path, "stranger")
    wrong = authority.issue("wrong", "DNS:example", "DNS:other.example"), stranger.issue("own", CLIENTS["DNS"]), ()
    for client in wrong:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = authority.context(*client)
            context.maximum_version = version
            with pytest.raises(OSError, match="alert|EOF|reset|closed|violation"):
                ask(service.metrics_url, context)
    write_config(tmp_path / "web.yml", [], tls_server_config=tls | {"client_allowed_sans": ["example"]})
    assert status(service.metrics_url, authority.context(*wrong[0])) == 200
    code, _, log = service.stop()
    assert (code, len(log.splitlines())) == (0, 3)
    no_name, untrusted, missing = reasons_in(log)
    assert (no_name, missing) == ("the client's certificate has no allowed name", "PEER_DID_NOT_RETURN_A_CERTIFICATE")
    assert "issuer certificate" in untrusted or "self" in untrusted


def test_a_client_certificate_if_given(serve, authority, tmp_path):
    """One that is given has to be right, and one may be left out."""
    certificate, key = authority.issue("server")
    tls = {"cert_file": certificate, "key_file": key, "client_ca": authority.path.read_text()}
    tls["client_auth_type"] = "VerifyClientCertIfGiven"
    service = serve(*ARGUMENTS, "--metrics-web-config", write_config(tmp_path / "web.yml", [], tls_server_config=tls))
    assert status(service.metrics_url, authority.context()) == 200
    assert status(service.metrics_url, authority.context(*authority.issue("client"))) == 200
    stranger = Authority(shutil.which("openssl"), tmp_path, "stranger")
    with pytest.raises(OSError, match="alert|EOF|reset|closed"):
        ask(service.metrics_url, authority.context(*stranger.issue("own")))


@pytest.mark.parametrize(
    ("settings", "options", "is_accepted"),
    [
        ({"min_version": "TLS13"}, ["-tls1_2"], False),
        ({"min_version": "TLS13"}, ["-tls1_3"], True),
        ({"max_version": "TLS12"}, ["-tls1_3"], False),
        ({"min_version": "TLS10"}, ["-tls1", "-cipher", "ALL:@SECLEVEL=0"], True),
        ({"min_version": "TLS11"}, ["-tls1", "-cipher", "ALL:@SECLEVEL=0"], False),
        ({"min_version": "TLS11"}, ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"], True),
        ({"cipher_suites": ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]}, ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], True),
        ({"cipher_suites": ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]}, ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], False),
        ({"cipher_suites": ["TLS_AES_128_GCM_SHA256"]}, ["-tls1_2"], False),
        ({"cipher_suites": ["TLS_AES_128_GCM_SHA256"]}, ["-tls1_3"], True),
    ],
)  # fmt: skip
def test_versions_and_ciphers(serve, authority, component, settings, options, is_accepted):  # noqa: PLR0917
    """They are those of the configuration."""
    certificate, key = authority.issue("server")
    tls = {"cert_file": certificate, "key_file": key, **settings}
    config = write_config(authority.directory / "web.yml", [], tls_server_config=tls)
    service = serve(*ARGUMENTS, "--metrics-web-config", config)
    done = subprocess.run(
        [component("openssl"), "s_client", *options, "-connect", ":".join(map(str, address(service)))],
        input="", capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert ("Cipher is (NONE)" not in done.stdout) == is_accepted, done.stdout


@pytest.mark.parametrize("prefers_own", [True, False])
def test_whose_order_of_ciphers(serve, authority, component, tmp_path, prefers_own):
    """The server's decides, unless the configuration leaves it to the client."""
    certificate, key = authority.issue("server")
    suites = ["TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"]
    tls = {"cert_file": certificate, "key_file": key, "max_version": "TLS12", "cipher_suites": suites}
    tls["prefer_server_cipher_suites"] = prefers_own
    service = serve(*ARGUMENTS, "--metrics-web-config", write_config(tmp_path / "web.yml", [], tls_server_config=tls))
    done = subprocess.run(
        [component("openssl"), "s_client", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384",
         "-connect", ":".join(map(str, address(service)))],
        input="", capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert f"Cipher is ECDHE-ECDSA-AES{'256-GCM-SHA384' if prefers_own else '128-GCM-SHA256'}" in done.stdout


def zip_options(files):
    return files[0], "--metrics-keyfile", files[1]


def write_config(path, users=("alice",), **more):
    """Write a web configuration with users whose passwords are their names."""
    hashes = {user: bcrypt.hashpw(user.encode(), bcrypt.gensalt(4)).decode() for user in users}
    path.write_text(json.dumps({"basic_auth_users": hashes, **more}))  # YAML, too
    return str(path)


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


@PROCESSES
def test_users(serve, tmp_path, workers):
    """Who is none, or has a wrong password, gets 401; nothing secret is in the log, the metrics or on the page."""
    config = write_config(tmp_path / "web.yml", ["alice", "b\xf6b"])
    service = serve(*ARGUMENTS, "--metrics-web-config", config, *workers)
    code, headers, text = ask(service.metrics_url)
    assert (code, text) == (401, "Unauthorized\n")
    assert headers["WWW-Authenticate"] == 'Basic realm="metrics", charset="UTF-8"'
    for _ in range(2):
        for user in ("alice", "b\xf6b"):
            assert status(service.metrics_url, **basic(user, user)) == 200
        for user, password in (("alice", ""), ("alice", "b\xf6b"), ("eve", "alice"), ("", "")):
            assert status(service.metrics_url, **basic(user, password)) == 401
    for wrong in ("Basic", "Basic YWxpY2U=", "Basic \xe4", "Basic a", "Bearer alice", "Digest alice"):
        assert status(service.metrics_url, Authorization=wrong) == 401
        assert status(service.metrics_url, **basic("alice", "alice")) == 200  # without which the next one waits
    text = ask(service.metrics_url, **basic("alice", "alice"))[2]
    assert "alice" not in text
    port = service.metrics_url.removesuffix("/metrics")
    assert status(f"{port}/?file=metrics", **basic("alice", "alice")) == 200
    assert service.stop() == (0, "", "")


async def test_a_flood_of_wrong_passwords(serve, tmp_path):
    """Who has a connection goes on to be answered, and who comes from another address gets one."""
    config = write_config(tmp_path / "web.yml")
    service = serve(*ARGUMENTS, "--metrics-web-config", config, is_measured=False)
    answers = Counter()

    async def guess(number):
        headers = basic("alice", str(number))
        async with ClientSession(headers=headers) as session, session.get(service.metrics_url) as response:
            answers[response.status] += 1

    async with ClientSession(headers=basic("alice", "alice")) as session, asyncio.timeout(DEADLINE):
        async with session.get(service.metrics_url) as response:
            assert response.status == 200
        guesses = [asyncio.create_task(guess(number)) for number in range(100)]
        while answers[401] < 4:
            async with session.get(service.metrics_url) as response:
                assert response.status == 200
            await asyncio.sleep(0.01)
        async with (
            ClientSession(
                headers=basic("alice", "alice"), connector=TCPConnector(local_addr=("127.0.0.2", 0))
            ) as other,
            other.get(service.metrics_url) as response,
        ):
            assert response.status == 200
        for each in guesses:
            each.cancel()
        await asyncio.gather(*guesses, return_exceptions=True)
    assert set(answers) == {401}


def test_users_and_a_token(serve, tmp_path):
    """Either will do: people have passwords, and a Prometheus the token."""
    (tmp_path / "token").write_text(TOKEN)
    options = (
        "--metrics-web-config",
        write_config(tmp_path / "web.yml"),
        "--metrics-token-file",
        str(tmp_path / "token"),
    )
    service = serve(*ARGUMENTS, *options)
    headers = ask(service.metrics_url)[1]
    assert [each.partition(" ")[0] for each in headers.get_all("WWW-Authenticate")] == ["Basic", "Bearer"]
    assert status(service.metrics_url, **basic("alice", "alice")) == 200
    assert status(service.metrics_url, **bearer(TOKEN)) == 200
    assert status(service.metrics_url, **bearer("alice")) == 401


@PROCESSES
def test_a_web_configuration_that_changes(serve, tmp_path, workers):
    """Users come and go at once. A broken one is one error, which shows nothing of it, and the earlier users stay."""
    file = tmp_path / "web.yml"
    service = serve(*ARGUMENTS, "--metrics-web-config", write_config(file), *workers)
    assert status(service.metrics_url, **basic("alice", "alice")) == 200
    write_config(file, ["bob"])
    assert status(service.metrics_url, **basic("alice", "alice")) == 401
    assert status(service.metrics_url, **basic("bob", "bob")) == 200
    file.write_text("basic_auth_users:\n  bob: hunter2\n")
    for _ in range(3):
        assert status(service.metrics_url, **basic("bob", "bob")) == 200
    line = service.process.stderr.readline()
    assert line.endswith(
        f"The metrics port keeps its earlier settings. An entry of basic_auth_users on line 2 of {file} is not a hash of bcrypt. "
        "Expected NAME: HASH, with a hash as htpasswd -nBC 10 writes it: $2y$10$…\n"
    )
    write_config(file, ["carol"], tls_server_config={"cert": "x", "key": "x"})
    assert status(service.metrics_url, **basic("bob", "bob")) == 200
    assert "tls_server_config.cert" in service.process.stderr.readline()
    file.write_text("")
    assert status(service.metrics_url) == 401
    assert status(service.metrics_url, **basic("bob", "bob")) == 200
    assert (
        "The new settings require no credentials, so everyone could read the metrics."
        in service.process.stderr.readline()
    )
    assert service.stop() == (0, "", "")


def test_tls_that_comes(serve, authority, tmp_path):
    """A port that speaks HTTP goes on to do so, and the log says what to do."""
    certificate, key = authority.issue("server")
    file = tmp_path / "web.yml"
    service = serve(*ARGUMENTS, "--metrics-web-config", write_config(file))
    write_config(file, tls_server_config={"cert_file": certificate, "key_file": key})
    assert status(service.metrics_url, **basic("alice", "alice")) == 200
    assert "The new settings switch TLS on or off, which a running port cannot do." in service.process.stderr.readline()


def test_headers_and_a_rate_limit(serve, tmp_path):
    """Each answer has the headers, and too many requests get 429; both change with the file."""
    file = tmp_path / "web.yml"
    headers = {"X-Frame-Options": "deny", "Content-Security-Policy": "default-src 'self'"}
    limit = {"interval": "1h", "burst": 4}
    service = serve(*ARGUMENTS, "--metrics-web-config", write_config(
        file, [], http_server_config={"headers": headers}, rate_limit=limit
    ))  # fmt: skip
    port = service.metrics_url.removesuffix("/metrics")
    answers = [ask(port + path) for path in ("/metrics", "/nowhere", "/-/ready", "/", "/metrics", "/metrics")]
    assert [code for code, _, _ in answers] == [200, 404, 200, 200, 429, 429]
    assert answers[4][1]["Retry-After"] == "1"
    for _, sent, _ in answers:
        assert sent["X-Frame-Options"] == "deny"
    assert answers[0][1]["Content-Security-Policy"] == "default-src 'self'"
    assert answers[3][1]["Content-Security-Policy"].startswith("default-src 'none'")  # the page's own
    write_config(file, [])
    code, sent, _ = ask(service.metrics_url)
    assert (code, sent["X-Frame-Options"]) == (200, None)


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (
            ["--metrics-token-file", "none"],
            1,
            '--metrics-token-file "none": No such file or directory. Expected a file',
        ),
        (["--metrics-token-file", os.devnull], 1, '--metrics-token-file "/dev/null": Not a regular file. Expected a'),
        (
            ["--metrics-web-config", os.devnull],
            1,
            '"/dev/null" cannot be read: Not a regular file. Expected a web conf',
        ),
        (["--metrics-token-file", "served.py"], 2, '--metrics-token-file "served.py" has more than a token.'),
        (["--metrics-certfile", "none"], 1, '--metrics-certfile "none": No such file or directory.'),
        (["--metrics-certfile", "served.py"], 2, '--metrics-certfile "served.py" is not a certificate.'),
        (["--metrics-keyfile", "x"], 2, "--metrics-keyfile was given without --metrics-certfile."),
        (["--metrics-web-config", "none"], 1, '"none" cannot be read: No such file or directory. Expected a web conf'),
        (["--metrics-web-config", "served.py"], 2, "line 1 of served.py is no"),
        (
            ["--metrics-web-config", "x", "--metrics-certfile", "x"],
            2,
            "--metrics-certfile was given with --metrics-web",
        ),
    ],
)
@PROCESSES
def test_files_that_are_wrong(options, code, sentence, workers):
    """Each is one sentence, before anything is served."""
    done = hr_prometheus("run", *ARGUMENTS, *options, *workers)
    assert done.returncode == code
    assert done.stderr.startswith(f"Error: {sentence}"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("access", ["token", "password", "client certificate"])
@PROCESSES
def test_a_real_prometheus(serve, prometheus, authority, workers, access):
    """It scrapes as `scrape-config` says for the same options, once it has what only it has."""
    certificate, key = authority.issue("server")
    directory, tls = authority.directory, {"cert_file": certificate, "key_file": key}
    (directory / "token").write_text(TOKEN)
    (directory / "prometheus.password").write_text("alice\n")
    authority.issue("prometheus", "DNS:prometheus.example")
    if access == "token":
        options = ["--metrics-certfile", certificate, "--metrics-keyfile", key]
        options += ["--metrics-token-file", str(directory / "token")]
    else:
        if access == "client certificate":
            tls |= {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.pem"}
        users = ["alice"] if access == "password" else []
        options = ["--metrics-web-config", write_config(directory / "web.yml", users, tls_server_config=tls)]
    service = serve(*ARGUMENTS, *options, *workers)
    job = f"{access}{len(workers)}"
    port = service.metrics_url.rpartition(":")[2].partition("/")[0]
    done = hr_prometheus("scrape-config", "--metrics-port", port, "--job", job, *options)
    assert done.stderr == ""
    text = re.sub(r"\b(prometheus[.-]\S+)\n", rf"{directory}/\1\n", done.stdout.partition("scrape_configs:")[2])
    (config,) = yaml.safe_load(text)
    config["tls_config"]["ca_file"] = str(authority.path)  # which has signed it
    prometheus.scrape_as(config)
    assert wait_for(lambda: prometheus.query(f'up{{job="{job}"}} == 1'), bool)
    config = {name: value for name, value in config.items() if name not in ("authorization", "basic_auth")}
    config |= {"authorization": {"credentials": "wrong"}, "tls_config": {"insecure_skip_verify": True}}
    prometheus.scrape_as(config)
    assert wait_for(lambda: prometheus.query(f'up{{job="{job}"}} == 0'), bool)


def test_top(serve, authority, tmp_path):
    """It shows the routes of a server that asks for a token and a certificate, and says what is wrong with its own."""
    certificate, key = authority.issue("server")
    token = authority.directory / "token"
    token.write_text(TOKEN)
    tls = {"cert_file": certificate, "key_file": key, "client_auth_type": "RequireAndVerifyClientCert"}
    config = write_config(authority.directory / "web.yml", tls_server_config=tls | {"client_ca_file": "ca.pem"})
    service = serve(*ARGUMENTS, "--metrics-web-config", config, "--metrics-token-file", str(token))
    assert status(service.url) == 200
    files = dict(zip(("--cert-file", "--key-file"), authority.issue("client"), strict=True))
    files |= {"--ca-file": str(authority.path), "--token-file": str(token)}

    def top(url=service.metrics_url, **changes):
        options = {name: path for name, path in {**files, **changes}.items() if path is not None}
        done = hr_prometheus("top", url, "--interval", "0.2", *(word for pair in options.items() for word in pair))
        assert TOKEN not in done.stdout + done.stderr
        return done.returncode, done.stdout, done.stderr

    assert "GET /" in top()[1]
    assert "GET /" in top(service.metrics_url.replace("//", "//alice:alice@"), **{"--token-file": None})[1]
    password = tmp_path / "password"
    password.write_text("alice\n")
    by_file = {"--token-file": None, "--password-file": str(password)}
    assert "GET /" in top(service.metrics_url.replace("//", "//alice@"), **by_file)[1]
    assert "answers with 401 Unauthorized" in top(service.metrics_url.replace("//", "//bob@"), **by_file)[2]
    assert "answers with 401 Unauthorized, instead of metrics." in top(**{"--token-file": None})[2]
    assert "--password-file was given without a user. Expected" in top(**by_file)[2]
    assert "Leave one of them out." in top(**{"--password-file": str(password)})[2]
    assert "with a password in the URL" in top(service.metrics_url.replace("//", "//alice:alice@"), **by_file)[2]
    for text, problem in (
        (b"\n", "is empty."),
        (b"a\nb", "has more than a password."),
        (b"\xff", "is not text in UTF-8."),
    ):
        password.write_bytes(text)
        assert problem in top(service.metrics_url.replace("//", "//alice@"), **by_file)[2]
    password.unlink()
    assert "No such file or directory. Expected" in top(service.metrics_url.replace("//", "//alice@"), **by_file)[2]
    assert top(**{"--token-file": os.devnull})[2].startswith('Error: --token-file "/dev/null" is empty.')
    assert top(**{"--key-file": None})[2].endswith("no private key. Give the file of the key with --key-file.\n")
    assert "--key-file was given without --cert-file." in top(**{"--cert-file": None})[2]
    assert "Leave one of them out." in top(service.metrics_url.replace("//", "//alice:alice@"))[2]
    assert top(**{"--cert-file": None, "--key-file": None})[0] == 1


def test_check_web_config(authority, tmp_path):
    """It says whether there are errors, in the files that are named as well."""
    file, (certificate, key) = tmp_path / "web.yml", authority.issue("server")
    done = hr_prometheus(
        "check-web-config", write_config(file, tls_server_config={"cert_file": certificate, "key_file": key})
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "No errors.\n", "")
    done = hr_prometheus("check-web-config", write_config(file, tls_server_config={"cert_file": key, "key_file": key}))
    assert (done.returncode, done.stdout) == (2, "")
    assert f'Error: tls_server_config.cert_file "{key}" on line 1 of {file} is not a certificate.' in done.stderr
    assert hr_prometheus("check-web-config", str(tmp_path / "none")).returncode == 1


def test_the_configuration_shows_no_secret(tmp_path):
    """`config` shows the files, and not what they say."""
    config = write_config(tmp_path / "web.yml")
    done = hr_prometheus("config", "run", "--metrics-port", "0", "--metrics-web-config", config)
    assert config in done.stdout
    assert "alice" not in done.stdout
    assert "$2b$" not in done.stdout


@pytest.mark.parametrize("option", ["--metrics-token-file", "--metrics-certfile", "--metrics-web-config"])
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
    while "metrics on" not in service.announcement:  # the script has a line of its own
        service.announcement = read_line(service.process)
    assert status(service.metrics_url, authority.context()) == 401
    assert status(service.metrics_url, authority.context(), **bearer(TOKEN)) == 200
