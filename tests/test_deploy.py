"""The files in examples/deploy are checked by the programs that they are for."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from conftest import DEADLINE, clean_environment
from manual import DOCS, ROOT

from hr_prometheus.commands.group import cli

DEPLOY = ROOT / "examples" / "deploy"
COMMAND = str(Path(sys.executable).parent / "hr-prometheus")
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))


def settings_of(words: list[str]) -> dict[str, object]:
    """Return the settings of ``run`` with these arguments, which are right."""
    return cli.commands["run"].make_context("run", list(words)).params


def output_of(*command: object) -> str:
    """Run a program that has no complaints, and return what it prints."""
    done = subprocess.run(
        [*map(str, command)], env=clean_environment(), capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_systemd_takes_the_units(component, tmp_path):
    """``systemd-analyze verify`` has nothing to say about them."""
    analyze = component("systemd-analyze")
    (tmp_path / "myproj.socket").write_text((DEPLOY / "myproj.socket").read_text())
    service = re.sub(r"/\S+/hr-prometheus ", f"{COMMAND} ", (DEPLOY / "myproj.service").read_text())
    (tmp_path / "myproj.service").write_text(service.replace("/srv/myproj", str(tmp_path)))
    assert output_of(analyze, "verify", "--man=no", tmp_path / "myproj.socket", tmp_path / "myproj.service") == ""
    assert settings_of(shlex.split(re.search(r"hr-prometheus run (.*)", service)[1]))["workers"] == 4


def test_nginx_takes_its_configuration(component, tmp_path):
    """``nginx -t`` accepts it as a file of conf.d."""
    nginx = component("nginx")
    text = (DEPLOY / "nginx.conf").read_text().replace("listen 80;", f"listen unix:{tmp_path}/listen;")
    (tmp_path / "site.conf").write_text(text)
    (tmp_path / "nginx.conf").write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}}\nhttp {{ access_log off; include {tmp_path}/site.conf; }}\n"
    )
    assert "test is successful" in output_of(nginx, "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf")


@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda manifest: manifest["kind"])
def test_kubernetes_takes_the_manifests(manifest):
    """Each is right by the schema of Kubernetes, and has no unknown field."""
    kubernetes_validate.validate(manifest, "1.33", strict=True)


def test_the_deployment_is_what_the_monitor_scrapes():
    """Labels, ports, probes and options fit together, and the pod has time to stop."""
    deployment, service = MANIFESTS
    pod = deployment["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    settings = settings_of(["myproj.app:create_app", *container["args"]])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": settings["port"], "metrics": settings["metrics_port"]}
    monitor = next(yaml.safe_load_all(re.search(r"\$ hr-prometheus scrape-config .*\n((?:.*\n)*?)```", PAGE)[1]))
    assert monitor["spec"]["selector"]["matchLabels"] == pod["metadata"]["labels"] == service["spec"]["selector"]
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in ports
    probes = {name: probe["httpGet"]["path"] for name, probe in container.items() if name.endswith("Probe")}
    assert probes == {
        "startupProbe": "/-/healthy", "livenessProbe": "/-/healthy", "readinessProbe": "/-/ready",
    }  # fmt: skip
    before_stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["spec"]["terminationGracePeriodSeconds"] >= before_stop + settings["shutdown_timeout"] + 5


PAGE = (DOCS / "how-to" / "kubernetes.md").read_text()


def test_the_dockerfile_runs_the_command():
    """Its instructions are Docker's, its arguments are the command's, and its health check asks a port that is exposed."""
    lines = [line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    instructions = {name: rest for name, _space, rest in (line.partition(" ") for line in lines)}
    assert {*instructions} <= {*"FROM WORKDIR COPY RUN USER EXPOSE HEALTHCHECK ENTRYPOINT CMD".split()}
    entry, arguments = json.loads(instructions["ENTRYPOINT"]), json.loads(instructions["CMD"])
    assert entry[:2] == ["hr-prometheus", "run"]
    settings = settings_of([*entry[2:], *arguments])
    assert instructions["EXPOSE"].split() == [str(settings["port"]), str(settings["metrics_port"])]
    check = json.loads(re.search(r"CMD (\[.*\])", instructions["HEALTHCHECK"])[1])
    compile(check[2], "health check", "exec")
    assert f":{settings['metrics_port']}/-/healthy" in check[2]
