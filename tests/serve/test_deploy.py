"""What is shipped to run the server elsewhere: files that parse, settings that the server takes,
and no way in but TLS."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from residency.core.part import parse
from residency.recipe import override
from residency.serve.app import ROUTES, probes
from residency.serve.settings import Oidc, RequestLimits, Serve
from test_repository import load

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"]
    return found


def test_only_the_proxy_is_reached_from_outside(services: dict[str, Any]) -> None:
    assert {name for name, one in services.items() if "ports" in one} == {"proxy"}
    assert services["redis"]["networks"] == services["prometheus"]["networks"] == ["inside"]


def test_prometheus_reads_every_replica() -> None:
    (job,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert (found["names"], found["type"], found["port"]) == (["residency"], "A", 8080)
    assert job.get("metrics_path", "/metrics") in {one.path for one in probes.routes}  # type: ignore[attr-defined]


def test_several_replicas_that_are_started_again_share_what_they_count(
    services: dict[str, Any],
) -> None:
    server = services["residency"]
    assert server["deploy"]["replicas"] > 1 and server["restart"] == "unless-stopped"
    assert server["depends_on"]["redis"] == {"condition": "service_healthy"}
    proxy = (DEPLOY / "nginx.conf").read_text("utf-8")
    assert "set $replicas residency;" in proxy and "http://$replicas:8080;" in proxy, (
        "replicas are found while the proxy runs"
    )
    assert "non_idempotent" not in proxy, "a request is never computed twice"


@pytest.mark.parametrize("name", ["residency", "triton", "redis", "proxy", "prometheus"])
def test_every_container_is_read_only_and_without_rights(
    services: dict[str, Any], name: str
) -> None:
    one = services[name]
    assert (one["read_only"], one["cap_drop"], one["security_opt"]) == (
        True,
        ["ALL"],
        ["no-new-privileges:true"],
    )
    assert "privileged" not in one


def test_only_the_servers_reach_triton(services: dict[str, Any]) -> None:
    inside = {name for name, one in services.items() if "models" in one["networks"]}
    assert services["triton"]["networks"] == ["models"] and inside == {"residency", "triton"}
    text = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    assert text["networks"]["models"] == {"internal": True}
    assert services["triton"]["volumes"][0] in services["residency"]["volumes"]
    settings = (DEPLOY / "serve.yaml").read_text("utf-8").replace("# triton:", "triton:")
    assert parse(Serve, yaml.safe_load(settings), "x").triton == "http://triton:8000"


def test_every_image_can_be_one_that_our_script_makes_named_by_its_digest(
    services: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, digest = load("image"), "ab" * 32
    pushed: list[str] = []

    def buildah(*words: str) -> str:
        pushed.extend(words[-1:] if words[0] == "push" else ())
        return f'{{"FromImageID": "{digest}"}}'

    monkeypatch.setattr(script, "buildah", buildah)
    script.save(tmp_path, list(script.IMAGES))
    told = dict(one.split("=") for one in (tmp_path / "images.env").read_text().splitlines())
    assert set(told.values()) == {f"sha256:{digest}"} and len(pushed) == len(services)
    for name, one in services.items():
        variable = "SERVER" if name == "residency" else name.upper()
        assert one["image"].startswith(f"${{{variable}_IMAGE:-") and f"{variable}_IMAGE" in told
    targets = re.findall(r"^FROM .* AS (\w+)$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.M)
    assert {"server", *targets} == set(script.IMAGES)


def test_the_image_runs_as_a_user_without_rights_and_says_whether_it_is_well() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8")
    final = lines[lines.rindex("\nFROM ") :]
    assert "\nUSER 10001:10001\n" in final
    assert "\nHEALTHCHECK " in final
    assert "--constraint constraints.txt" in lines


def test_the_server_takes_the_settings_that_are_shipped() -> None:
    found = parse(
        Serve, yaml.safe_load((DEPLOY / "serve.yaml").read_text("utf-8")), "deploy/serve.yaml"
    )
    assert isinstance(found.auth, Oidc)
    assert found.limits.redis
    proxy = (DEPLOY / "nginx.conf").read_text("utf-8")
    largest = int(re.findall(r"client_max_body_size (\d+)k", proxy)[0]) * 1024
    assert largest >= found.limits.body_bytes
    assert (
        int(re.findall(r"client_body_buffer_size (\d+)k", proxy)[0]) * 1024 >= largest
    )  # no body on disk
    assert int(re.findall(r"proxy_read_timeout (\d+)s", proxy)[0]) > found.limits.seconds


@pytest.fixture(scope="module")
def cluster() -> dict[tuple[str, str], Any]:
    """Kind and name -> object of the Kubernetes manifests."""
    found = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text("utf-8"))
    return {(one["kind"], one["metadata"]["name"]): one for one in found}


def test_kubernetes_takes_its_manifests(cluster: dict[tuple[str, str], Any]) -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    for version in ("1.31", "1.34"):
        for one in cluster.values():
            validate.validate(one, version, strict=True)


def test_the_pods_have_no_rights_and_are_asked_what_the_server_answers(
    cluster: dict[tuple[str, str], Any],
) -> None:
    pods = {
        name: one["spec"]["template"]["spec"]
        for (_, name), one in cluster.items()
        if "template" in one["spec"]
    }
    assert set(pods) == {"residency", "redis"}
    for pod in pods.values():
        assert pod["securityContext"]["runAsNonRoot"] and not pod["automountServiceAccountToken"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    answered = {one.path for one in probes.routes}  # type: ignore[attr-defined]
    (server,) = pods["residency"]["containers"]
    asked = {
        server[f"{one}Probe"]["httpGet"]["path"] for one in ("startup", "readiness", "liveness")
    }
    assert asked == {"/healthz", "/readyz"} <= answered
    assert pods["residency"]["terminationGracePeriodSeconds"] > RequestLimits().drain
    assert cluster["StatefulSet", "residency"]["spec"]["replicas"] > 1


def test_the_ingress_shows_the_routes_of_users_alone(cluster: dict[tuple[str, str], Any]) -> None:
    (rule,) = cluster["Ingress", "residency"]["spec"]["rules"]
    shown = {one["path"]: one["pathType"] for one in rule["http"]["paths"]}

    def reached(route: str) -> bool:
        return any(
            route == path or (kind == "Prefix" and route.startswith(f"{path}/"))
            for path, kind in shown.items()
        )

    inside = {"/healthz", "/readyz", "/metrics", *(one for one in ROUTES if "/admin/" in one)}
    assert {one for one in ROUTES if not reached(one)} == inside
    for text in (cluster["NetworkPolicy", "redis"], cluster["NetworkPolicy", "residency"]):
        assert "Ingress" in text["spec"]["policyTypes"]


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    if not (systemd := shutil.which("systemd-analyze")):
        pytest.skip("needs systemd-analyze")
    for unit in (DEPLOY / "systemd").iterdir():  # the program is not installed here
        text = unit.read_text("utf-8").replace("/usr/local/lib/residency/bin/residency", "/bin/sh")
        (tmp_path / unit.name).write_text(text)
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        [systemd, "verify", "--man=no", *paths], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_units_call_verbs_and_settings_that_are_there() -> None:
    """Each command of a unit, as the program reads it; nothing is done."""
    from typer.main import get_command

    from residency import cli

    root, called = get_command(cli.app), []
    for unit in ("residency", "residency-backup"):
        text = (DEPLOY / "systemd" / f"{unit}.service").read_text("utf-8")
        words = shlex.split(re.findall(r"^ExecStart=.*?bin/residency ([^\n']*)", text, re.M)[0])
        name, *rest = words
        command = root.commands[name]  # type: ignore[attr-defined]
        called.append((name, command.make_context(name, rest).params))
    served, backed = (params for _, params in called)
    settings = yaml.safe_load((DEPLOY / "serve.yaml").read_text("utf-8"))
    changes = [one for one in served["arguments"] if "=" in one]
    found = parse(Serve, override(settings, changes), "unit")
    assert (found.host, found.logs.folder) == ("127.0.0.1", "/var/lib/residency/serve")
    assert backed["out"].suffix == ".residency" and len(backed["sources"]) == 3


def test_nothing_private_goes_into_the_image() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert lines[1] == "*"  # everything is left out but what is named


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    if not (nginx := shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")):
        pytest.skip("needs nginx")
    text = (DEPLOY / "nginx.conf").read_text("utf-8").replace("/tmp/", f"{tmp_path}/")
    text = text.replace("/etc/nginx/tls", str(tmp_path))
    (tmp_path / "nginx.conf").write_text(text)
    self_signed(tmp_path)
    done = subprocess.run(
        [nginx, "-t", "-c", str(tmp_path / "nginx.conf")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def self_signed(folder: Path) -> None:
    """A certificate for this test."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(
        name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1)
    )
    (folder / "tls.crt").write_bytes(
        made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    plain = serialization.NoEncryption()
    (folder / "tls.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
