from __future__ import annotations

import pytest
from click.testing import CliRunner

from hr_prometheus.commands.group import cli
from hr_prometheus.quotes import hide_pem, hide_secret, quote, quote_path

KEY = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n"
TOKEN = "e070e08bf24bf9dab36d19e56a59abd79d38448a64d31ed305a947fafa456925"  # noqa: S105  # of a test


@pytest.mark.parametrize(
    "path",
    [
        "", "web.yml", "certificate", "~/a.pem", "$CERT", "../keys/server-key.pem", "/run/secrets/metrics-certificate-of-the-server",
        "/etc/prometheus/certificates/Production2/server", "/var/lib/kubelet/pods/8d7a3c5e-0000/volumes/..2026_01_01/tls.key", "ü b.pem",
        "services/payments/backend/source", "My-Service/configuration/production", "deploy-2026/payments/backend/web",
    ],
)  # fmt: skip
def test_paths(path):
    """One of a usual kind is quoted as it is."""
    assert quote_path(path) == f'"{path}"'


@pytest.mark.parametrize(
    "path",
    [
        KEY, " ".join(KEY.split("\n")), TOKEN, "QWT_SkXXj5iqkP9zdYQctsTs8HuqM5g6OXWOaCUQ220",
        "/qoXv5RLeub+rTFAPNalcN4Mhbxa14GFOpMLMRbXo9RhE3j7Sg7I+XKd0jXiadab", "a\nb",
        "$2b$04$O3LLtd8neOHdcB7oDXjU4e2R/nT4HhfWFZtQxEoJVp9NAcm5UkW1S", "alice:$2y$10$abc", "x/" * 200, f"/{TOKEN}", f"{'MIGHAgEA' * 8} {'nbeDV93b' * 8}",
    ],
)  # fmt: skip
def test_secrets_in_the_place_of_a_path(path):
    """A key, a token or a hash is not quoted, and its length says which value it is."""
    assert quote_path(path) == hide_secret(path, is_path=True) == f"({len(path)} characters, which may be a secret)"


def test_other_values():
    """One is quoted unless it has a key or a hash: a commit may look like a token."""
    assert quote(TOKEN) == f'"{TOKEN}"'
    assert "hunter2" not in quote(KEY)
    assert hide_pem(f"No such option '{KEY.strip()}'.") == "No such option '(PEM text)'."


PATH_OPTIONS = {
    "run": ["certfile", "keyfile", "metrics-certfile", "metrics-keyfile", "metrics-token-file", "metrics-web-config", "log-config"],
    "scrape-config": ["metrics-web-config"],
    "top": ["token-file", "ca-file", "cert-file"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("command", "option"), [(name, option) for name, each in PATH_OPTIONS.items() for option in each]
)
def test_a_secret_in_the_place_of_a_file(monkeypatch, tmp_path, command, option):
    """Neither the command nor `config` shows it, whether it was typed or is in a variable."""
    monkeypatch.chdir(tmp_path)
    variable = f"HR_PROMETHEUS_{option.upper().replace('-', '_')}"
    target = {"run": ["x:app"], "top": ["https://127.0.0.1:9"]}.get(command, [])
    port = {"run": ["--metrics-port", "0"], "scrape-config": ["--metrics-port", "9100"]}.get(command, [])
    for text in (KEY, TOKEN):
        for arguments, environment in (([f"--{option}", text], {}), ([], {variable: text})):
            for prefix in ([command], ["config", command]):
                result = CliRunner().invoke(cli, [*prefix, *port, *arguments, *target], env=environment)
                assert isinstance(result.exception, SystemExit | None)
                assert not environment or variable in result.output
                assert "hunter2" not in result.output
                assert TOKEN not in result.output


@pytest.mark.parametrize(
    "arguments", [["check-web-config", KEY], ["run", "--loop", KEY, "x:app"], ["run", "--label", f"a={KEY}", "x:app"]]
)
def test_a_key_in_another_place(arguments):
    """No error repeats it."""
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 2
    assert "Error: " in result.output
    assert "hunter2" not in result.output
