from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.observability.scrape_config import render_pod_monitor, render_scrape_config
from hr_prometheus.settings import Settings

CERTIFICATE = str(Path(__file__).parent / "tls" / "certificate.pem")
KEY = str(Path(__file__).parent / "tls" / "key.pem")


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ("http", "127.0.0.1:8080", "/metrics")),
        ({"host": "0.0.0.0", "port": 80, "metrics_path": "/m"}, ("http", "127.0.0.1:80", "/m")),  # noqa: S104
        ({"host": "::", "metrics_port": 9100}, ("http", "[::1]:9100", "/metrics")),
        ({"host": "a", "metrics_port": 9100, "metrics_host": "b.example"}, ("http", "b.example:9100", "/metrics")),
        ({"unix_path": "/run/x", "metrics_port": 9100}, ("http", "127.0.0.1:9100", "/metrics")),
        ({"unix_path": "/run/x", "port": 81}, ("http", "127.0.0.1:81", "/metrics")),
        ({"certfile": CERTIFICATE}, ("https", "127.0.0.1:8080", "/metrics")),
        ({"certfile": CERTIFICATE, "metrics_port": 9100}, ("http", "127.0.0.1:9100", "/metrics")),
    ],
)
def test_promtool_agrees(tmp_path, promtool, settings, expected):
    """What is written says where the metrics of a run with the same settings are, and is a configuration."""
    text = render_scrape_config(Settings(target="", **settings), 'the "shop"')
    (config,) = yaml.safe_load(text)["scrape_configs"]
    assert config["job_name"] == 'the "shop"'
    assert (config["scheme"], config["static_configs"][0]["targets"][0], config["metrics_path"]) == expected
    (tmp_path / "prometheus.yml").write_text(text)
    done = promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("asked", "fields", "comment"),
    [
        ((None, None), [], ""),
        ((None, "2"), [], ""),
        ((None, "3"), [], ""),
        ((None, "3", True), ["convert_classic_histograms_to_nhcb"], "rules with --native-histograms: there are no"),
        (("only", None), [], "give --prometheus 2 or 3"),
        (("only", "2"), [], "Start Prometheus with --enable-feature=native-histograms"),
        (("both", "2"), [], "scrape_classic_histograms: true keeps the classic histograms"),
        (("only", "3"), ["scrape_native_histograms"], "Before Prometheus 3.8"),
        (("both", "3"), ["scrape_native_histograms", "always_scrape_classic_histograms"], "Before Prometheus 3.8"),
    ],
)
def test_one_series_for_each_histogram(tmp_path, promtool, asked, fields, comment):
    """The fields are those of the Prometheus that is chosen; what else it needs stands above them."""
    mode, version, *convert = asked
    options = {"convert": bool(convert)}
    settings = Settings(target="", native_histograms=mode, host="0.0.0.0")  # noqa: S104
    text = render_scrape_config(settings, "shop", version, **options)
    (config,) = yaml.safe_load(text)["scrape_configs"]
    assert [name for name, value in config.items() if value is True] == fields
    assert comment in text
    pods = render_pod_monitor(settings, "shop", version, **options)
    monitors = [document["spec"] for document in yaml.safe_load_all(pods)][:2]
    for spec in monitors:
        assert [name.lower() for name, value in spec.items() if value is True] == [
            name.replace("_", "").removeprefix("always") for name in fields
        ]
    if version != "3" or re.search(r"version 3\.([89]|\d\d)", promtool("--version").stdout):
        (tmp_path / "prometheus.yml").write_text(text)
        done = promtool("check", "config", tmp_path / "prometheus.yml")
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("asked", [(None, None), (None, "2"), ("only", "3"), ("both", "3")])
def test_only_prometheus_3_converts_and_only_classic_histograms(asked):
    """What is asked for in vain is refused."""
    mode, version = asked
    with pytest.raises(ConfigurationError, match="--convert-histograms is for classic histograms in Prometheus 3"):
        render_scrape_config(Settings(target="", native_histograms=mode), "shop", version, convert=True)


USERS = "basic_auth_users: {alice: $2b$04$abcdefghijklmnopqrstuuvI9x8PQ3rdpWsQlz1UyDLq1EX0l5lZu}\n"
TLS = f"tls_server_config: {{cert_file: {CERTIFICATE}, key_file: key.pem%s}}\n"


@pytest.mark.parametrize(
    ("config", "options", "expected", "comment"),
    [
        ("", {"metrics_certfile": CERTIFICATE}, {"scheme": "https", "tls_config": {"ca_file": CERTIFICATE}}, ""),
        ("", {"metrics_token_file": "/t"}, {"authorization": {"type": "Bearer", "credentials_file": "/t"}}, ""),
        (
            USERS,
            {},
            {"basic_auth": {"username": "alice", "password_file": "prometheus.password"}},
            '# Beside it put the password of "alice" in prometheus.password.',
        ),
        (USERS, {"metrics_token_file": "/t"}, {"authorization": {"type": "Bearer", "credentials_file": "/t"}}, ""),
        (TLS % "", {}, {"scheme": "https", "tls_config": {"ca_file": CERTIFICATE}}, ""),
        (
            TLS % ", client_auth_type: RequireAndVerifyClientCert",
            {},
            {"tls_config": {"ca_file": CERTIFICATE, "cert_file": "prometheus.pem", "key_file": "prometheus-key.pem"}},
            "# Beside it put the client's certificate prometheus.pem and its key prometheus-key.pem.",
        ),
        (
            TLS.replace(f"cert_file: {CERTIFICATE}", "cert: x") % "",
            {},
            {"tls_config": {"ca_file": "prometheus-ca.pem"}},
            "# Beside it put the server's certificate prometheus-ca.pem, the text under cert.",
        ),
    ],
)
def test_credentials(tmp_path, promtool, config, options, expected, comment):  # noqa: PLR0917
    """What is written has what the metrics port asks for, and comments say what is missing."""
    if config:
        (tmp_path / "web.yml").write_text(config)
        options = options | {"metrics_web_config": str(tmp_path / "web.yml")}
    text = render_scrape_config(Settings(target="", metrics_port=9100, **options), "shop")
    (written,) = yaml.safe_load(text)["scrape_configs"]
    plain = {"job_name", "scheme", "metrics_path", "static_configs"} - set(expected)
    assert {name: value for name, value in written.items() if name not in plain} == expected
    assert ("https" if "tls_config" in expected else expected.get("scheme", "http")) == written["scheme"]
    assert text.count("#") == (2 if comment else 1)
    assert comment in text
    for name in ("prometheus.pem", "prometheus-key.pem", "prometheus-ca.pem"):
        (tmp_path / name).write_bytes(Path(KEY if name == "prometheus-key.pem" else CERTIFICATE).read_bytes())
    (tmp_path / "token").write_text("x")
    (tmp_path / "prometheus.yml").write_text(text.replace("/t\n", f"{tmp_path}/token\n"))
    done = promtool("check", "config", tmp_path / "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_credentials_in_kubernetes(tmp_path):
    """They are in one Secret, whose keys a comment names."""
    (tmp_path / "web.yml").write_text(USERS + TLS % ", client_auth_type: RequireAndVerifyClientCert")
    of_users = {"metrics_web_config": str(tmp_path / "web.yml")}
    for options, keys in (
        (of_users, "ca.pem, prometheus.pem, prometheus-key.pem, username, password"),
        ({"metrics_token_file": "/t"}, "token"),
    ):
        settings = Settings(target="", host="0.0.0.0", metrics_port=9100, **options)  # noqa: S104
        text = render_pod_monitor(settings, "shop")
        (endpoint,) = next(yaml.safe_load_all(text))["spec"]["podMetricsEndpoints"]
        assert f"# The Secret shop-metrics needs the keys {keys}.\n" in text
        if options is of_users:
            assert endpoint["scheme"] == "https"
            assert endpoint["tlsConfig"] == {
                "ca": {"secret": {"name": "shop-metrics", "key": "ca.pem"}},
                "cert": {"secret": {"name": "shop-metrics", "key": "prometheus.pem"}},
                "keySecret": {"name": "shop-metrics", "key": "prometheus-key.pem"},
            }
            assert endpoint["basicAuth"] == {
                name: {"name": "shop-metrics", "key": name} for name in ("username", "password")
            }
        else:
            assert endpoint["authorization"] == {
                "type": "Bearer",
                "credentials": {"name": "shop-metrics", "key": "token"},
            }


def test_discovery_by_files(tmp_path, promtool):
    """The targets are those that the processes write; addresses and paths are in their files."""
    settings = Settings(target="", file_sd=str(tmp_path), metrics_port=0, certfile=CERTIFICATE)
    text = render_scrape_config(settings, "shop")
    expected = {"job_name": "shop", "file_sd_configs": [{"files": [f"{tmp_path}/hr-prometheus-*.json"]}]}
    assert yaml.safe_load(text) == {"scrape_configs": [expected]}
    (tmp_path / "prometheus.yml").write_text(text)
    assert promtool("check", "config", tmp_path / "prometheus.yml").returncode == 0
    of_application = replace(settings, metrics_port=None)
    (config,) = yaml.safe_load(render_scrape_config(of_application, "shop"))["scrape_configs"]
    assert config["tls_config"] == {"ca_file": CERTIFICATE}


def test_kubernetes():
    """A PodMonitor, a ServiceMonitor and annotations, which say the same."""
    text = render_pod_monitor(Settings(target="", host="0.0.0.0", metrics_port=9100), "shop")  # noqa: S104
    monitor, of_service, patch = yaml.safe_load_all(text)
    assert of_service["kind"] == "ServiceMonitor"
    assert of_service["metadata"] == monitor["metadata"]
    spec = dict(monitor["spec"])
    assert of_service["spec"] == {"endpoints": spec.pop("podMetricsEndpoints"), **spec}
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"] == [{"port": "metrics", "scheme": "http", "path": "/metrics"}]
    assert monitor["spec"]["selector"]["matchLabels"] == monitor["metadata"]["labels"]
    assert "containerPort: 9100" in text
    assert patch["spec"]["template"]["metadata"]["annotations"] == {
        "prometheus.io/scrape": "true",
        "prometheus.io/scheme": "http",
        "prometheus.io/path": "/metrics",
        "prometheus.io/port": "9100",
    }


@pytest.mark.parametrize(
    ("make", "settings", "job", "sentence"),
    [
        (render_pod_monitor, {"file_sd": "."}, "shop", "--file-sd was given with --kubernetes."),
        (render_scrape_config, {"port": 0}, "shop", "port 0 is a different port at each start"),
        (render_scrape_config, {"metrics_port": 0}, "shop", "port 0 is a different port at each start"),
        (render_scrape_config, {"unix_path": "/run/x"}, "shop", 'on the unix socket "/run/x", .* --metrics-port 9100'),
        (render_scrape_config, {"metrics_path": "metrics"}, "shop", 'metrics_path="metrics" cannot be served'),
        (render_pod_monitor, {"host": "0.0.0.0"}, "The Shop", '--job "The Shop" cannot be a name'),  # noqa: S104
        (render_pod_monitor, {}, "shop", 'would listen on "127.0.0.1", .* Give --host 0.0.0.0'),
    ],
)
def test_what_cannot_be_scraped(make, settings, job, sentence):
    """Each sentence says what to do."""
    with pytest.raises(ConfigurationError, match=sentence):
        make(Settings(target="", **settings), job)
