"""Throw-away credentials for one run: API keys, a JWT and its secret, a certificate."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import shutil
import subprocess
import time
from pathlib import Path

KEY_COUNT = 100
TOKEN_SECONDS = 24 * 3600


class Credentials:
    """Everything secret that peers and clients share, written below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys = [f"tg_{secrets.token_hex(16)}" for _ in range(KEY_COUNT)]
        self.jwt_secret = secrets.token_hex(32)
        now = int(time.time())
        self.jwt = sign_hs256(
            {"iss": "bench", "aud": "bench", "sub": "user-1", "iat": now, "exp": now + TOKEN_SECONDS}, self.jwt_secret
        )
        if shutil.which("openssl"):
            self._write_certificate()

    @property
    def key(self) -> str:
        """The one of the known API keys that the load uses."""
        return self.keys[KEY_COUNT // 2]

    def template_values(self) -> dict[str, object]:
        """Write the files the peers read, and return the placeholders for templates."""
        ids = {key: f"client-{number}" for number, key in enumerate(self.keys)}
        nginx = "".join(f'"{key}" "{name}";\n' for key, name in ids.items())
        jwk = {"kty": "oct", "alg": "HS256", "k": _base64url(self.jwt_secret.encode())}
        return {
            "KEYS_NGINX": self._write("keys.map", nginx),
            "KEYS_HAPROXY": self._write("keys.acl", "\n".join(self.keys) + "\n"),
            "KEYS_ENVOY": json.dumps([{"key": key, "client": name} for key, name in ids.items()]),
            "KEYS_TOLLGATE": self.tollgate_keys(self.keys),
            "JWT_SECRET": self.jwt_secret,
            "JWT_SECRET_FILE": self._write("jwt.secret", self.jwt_secret),
            "JWKS": json.dumps({"keys": [jwk]}),
            "CERT": self.directory / "cert.pem",
            "CERT_KEY": self.directory / "cert.key",
            "CERT_PEM": self.directory / "cert-and-key.pem",
        }

    @staticmethod
    def tollgate_keys(keys: list[str], others: int = 0) -> str:
        """These keys, and so many that nobody has, as our configuration."""
        digests = [hashlib.sha256(key.encode()).hexdigest() for key in keys] + [secrets.token_hex(32) for _ in range(others)]
        return json.dumps([{"id": f"client-{number}", "sha256": digest} for number, digest in enumerate(digests)])

    def _write(self, name: str, content: str) -> Path:
        path = self.directory / name
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(content)
        return path

    def _write_certificate(self) -> None:
        """Make a self-signed ECDSA P-256 certificate."""
        key, cert = self.directory / "cert.key", self.directory / "cert.pem"
        argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        argv += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        subprocess.run([*argv, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
        self._write("cert-and-key.pem", cert.read_text() + key.read_text())


def sign_hs256(claims: dict[str, object], secret: str) -> str:
    """Encode `claims` as a JWT signed with HS256."""
    parts = [_base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims)]
    signed = ".".join(parts)
    return f"{signed}.{_base64url(hmac.digest(secret.encode(), signed.encode(), 'sha256'))}"


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
