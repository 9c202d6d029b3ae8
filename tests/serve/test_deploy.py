"""What is shipped to run the server elsewhere: files that parse, settings that the server takes,
and no way in but TLS."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import socketserver
import struct
import subprocess
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from serve_tools import LONG, free

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


def proxy(tmp_path: Path) -> tuple[str, Path]:
    """nginx, and its configuration in a folder of this test."""
    if not (nginx := shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")):
        pytest.skip("needs nginx")
    text = (DEPLOY / "nginx.conf").read_text("utf-8").replace("/tmp/", f"{tmp_path}/")
    made = tmp_path / "nginx.conf"
    made.write_text(text.replace("/etc/nginx/tls", str(tmp_path)))
    self_signed(tmp_path)
    return nginx, made


def test_nginx_takes_its_configuration(tmp_path: Path) -> None:
    nginx, made = proxy(tmp_path)
    done = subprocess.run([nginx, "-t", "-c", made], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class Replica(BaseHTTPRequestHandler):
    """Says at which address it was asked."""

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(self.server.server_address[0]).encode())


class Names(socketserver.BaseRequestHandler):
    """A name server: every name has the addresses of ``server.found`` [A records, seconds 1]."""

    def handle(self) -> None:
        asked, talk = self.request
        question = asked[12 : asked.index(b"\0", 12) + 5]
        found = self.server.found if question[-3] == 1 else []  # type: ignore[attr-defined]
        head = asked[:2] + struct.pack("!5H", 0x8180, 1, len(found), 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4)
        answers = b"".join(record + socket.inet_aton(one) for one in found)
        talk.sendto(head + question + answers, self.client_address)


def test_the_proxy_finds_replicas_that_come_and_go(tmp_path: Path) -> None:
    nginx, made = proxy(tmp_path)
    names = socketserver.ThreadingUDPServer(("127.0.0.1", 0), Names)
    replicas = {}
    for address in ("127.0.0.2", "127.0.0.3"):
        port = replicas["127.0.0.2"].server_port if replicas else 0
        replicas[address] = ThreadingHTTPServer((address, port), Replica)
    listen = free()
    text = made.read_text().replace("127.0.0.11 valid=5s", f"127.0.0.1:{names.server_address[1]}")
    text = text.replace("$replicas:8080", f"$replicas:{port}").replace("8443", str(listen))
    made.write_text(f"daemon off;\n{text}")
    running = [names, *replicas.values()]
    for one in running:
        threading.Thread(target=one.serve_forever, daemon=True).start()
    names.found = ["127.0.0.2"]  # type: ignore[attr-defined]
    process = subprocess.Popen([nginx, "-c", made], stderr=subprocess.DEVNULL)
    try:
        with httpx2.Client(verify=False, base_url=f"https://127.0.0.1:{listen}") as client:

            def said(count: int) -> set[str]:
                return {client.post("/extract", content=b"x").text for _ in range(count)}

            until = time.monotonic() + LONG
            while time.monotonic() < until:
                with suppress(httpx2.HTTPError):
                    if said(1) == {"127.0.0.2"}:
                        break
            names.found = list(replicas)  # type: ignore[attr-defined]
            while said(4) != set(replicas):
                assert time.monotonic() < until
            replicas["127.0.0.2"].shutdown()
            replicas["127.0.0.2"].server_close()
            assert said(20) == {"127.0.0.3"}, "the other one answers at once, and nothing fails"
            assert client.get("/metrics").status_code == client.get("/admin/x").status_code == 404
    finally:
        process.terminate()
        process.wait(LONG)
        for one in running:
            one.shutdown()
            one.server_close()


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
