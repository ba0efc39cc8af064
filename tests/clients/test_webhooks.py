"""Webhooks over TLS, whose certificate an authority of our own signed, and what the data folder says of their secrets."""

import base64
import datetime
import hashlib
import hmac
import http.server
import ipaddress
import json
import ssl
import stat
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mlflow import MlflowClient
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent

import tracking_server
from conftest import Project

SECRET = "only-the-receiver-knows-this"
CREATED = [WebhookEvent(WebhookEntity.REGISTERED_MODEL, WebhookAction.CREATED)]


def certificate(name: str, key, issuer: str, signer, authority: bool) -> x509.Certificate:
    now = datetime.datetime.now(datetime.timezone.utc)
    named = lambda text: x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(usage, critical=False)
    return builder.sign(signer, hashes.SHA256())


def pem(thing) -> bytes:
    if isinstance(thing, x509.Certificate):
        return thing.public_bytes(serialization.Encoding.PEM)
    return thing.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """The authority's certificate, and that of the receiver with its key."""
    folder = tmp_path_factory.mktemp("authority")
    of_authority, of_receiver = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    (folder / "ca.pem").write_bytes(pem(certificate("Our authority", of_authority, "Our authority", of_authority, True)))
    receiver = certificate("localhost", of_receiver, "Our authority", of_authority, False)
    (folder / "receiver.pem").write_bytes(pem(receiver) + pem(of_receiver))
    return folder


@pytest.fixture
def receiver(authority):
    got = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.headers, body))
            # Neither a length nor a word of goodbye, as small servers do it: the status counts.
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args):
            pass

    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority / "receiver.pem")
    listener.socket = tls.wrap_socket(listener.socket, server_side=True)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    yield f"https://localhost:{listener.server_port}/hook", got
    listener.shutdown()


def started(folder, **env):
    env = {"MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true", "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "0"} | env
    return tracking_server.start(folder, "sqlite", env=env)


def test_a_webhook_goes_over_tls_to_whom_a_known_authority_vouches_for(tmp_path, authority, receiver):
    url, got = receiver
    server = started(tmp_path / "server", SSL_CERT_FILE=str(authority / "ca.pem"))
    try:
        client = MlflowClient(server.url, server.url)
        hook = client.create_webhook("tls", url, CREATED, secret=SECRET)
        assert client.test_webhook(hook.webhook_id).success
        client.create_registered_model("over-tls")
        deadline = time.monotonic() + 20
        while len(got) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        headers, body = got[1]
        assert json.loads(body)["data"]["name"] == "over-tls"
        signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.".encode() + body
        mac = hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()
        assert headers["X-MLflow-Signature"] == "v1," + base64.b64encode(mac).decode()
    finally:
        server.stop()


def test_a_receiver_for_whom_nobody_vouches_gets_nothing(tmp_path, receiver):
    url, got = receiver
    server = started(tmp_path / "server")
    try:
        client = MlflowClient(server.url, server.url)
        hook = client.create_webhook("tls", url, CREATED, secret=SECRET)
        result = client.test_webhook(hook.webhook_id)
        assert not result.success and "certificate" in result.error_message.lower(), result
        assert got == []
    finally:
        server.stop()


def test_no_file_of_the_data_folder_holds_a_secret_in_the_clear(tmp_path, authority, receiver):
    url, got = receiver
    trust = {"SSL_CERT_FILE": str(authority / "ca.pem")}
    server = started(tmp_path / "server", **trust)
    client = MlflowClient(server.url, server.url)
    hook = client.create_webhook("kept", url, CREATED, secret=SECRET)
    server.stop()
    data = tmp_path / "server" / "data"
    assert stat.S_IMODE((data / "secrets.key").stat().st_mode) == 0o600
    for path in [*data.rglob("*"), tmp_path / "server" / "server.log"]:
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    # It is known after a restart, and with another key it is not.
    server = Project(tmp_path / "server", "tracking", env=trust | {"MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true"})
    server.up("--data", str(data))
    assert MlflowClient(server.url, server.url).test_webhook(hook.webhook_id).success
    server.stop()
    assert "X-MLflow-Signature" in got[-1][0]
    server.env["MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"] = "another key, of the administrator"
    server.up("--data", str(data))
    result = MlflowClient(server.url, server.url).test_webhook(hook.webhook_id)
    server.stop()
    assert not result.success and "another key" in result.error_message, result
    assert len(got) == 1
