from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from hr_prometheus.errors import ConfigurationError
from hr_prometheus.observability.scrape_config import render_pod_monitor, render_scrape_config
from hr_prometheus.settings import Settings

CERTIFICATE = str(Path(__file__).parent / "tls" / "certificate.pem")


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
        (render_scrape_config, {"port": 0}, "shop", "port 0 is another one each time"),
        (render_scrape_config, {"metrics_port": 0}, "shop", "port 0 is another one each time"),
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
