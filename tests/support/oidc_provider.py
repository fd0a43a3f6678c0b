"""A small OpenID Connect provider on this machine: discovery, code flow with PKCE, device flow (RFC 8628), RS256. Whom it signs in,
and how, tests say."""

from __future__ import annotations

import hashlib
import json
import secrets
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT_ID, CLIENT_SECRET = "dispatcher", "a-secret-of-the-client"


@dataclass
class OidcProvider:
    """`claims` replaces claims of the ID token; `key` signs, `published` is in the key set."""

    issuer: str
    published: RSAKey
    key: RSAKey
    claims: dict[str, Any] = field(default_factory=dict)
    algorithm: str = "RS256"
    asked: list[dict[str, str]] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)  # replaces members of the answer of the device endpoint
    errors: list[str] = field(default_factory=list)  # what a device is answered before it is signed in, in order
    device_codes: set[str] = field(default_factory=set)

    def sign_in(self, url: str) -> str:
        """What a browser gets when the person signs in at this URL: the URL to go back to."""
        parts = urlsplit(url)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.issuer}/authorize"
        asked = dict(parse_qsl(parts.query))
        assert (asked["response_type"], asked["client_id"], asked["code_challenge_method"]) == ("code", CLIENT_ID, "S256")
        assert "openid" in asked["scope"].split()
        self.asked.append(asked)
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, form: dict[str, str], authorization: str, now: int) -> dict[str, Any] | None:
        """The answer of the token endpoint; None refuses. A code works once, for the client that has its verifier."""
        if not self._is_client(authorization):
            return None
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest()).rstrip(b"=").decode()
        if asked is None:
            return None
        if challenge != asked["code_challenge"] or form.get("redirect_uri") != asked["redirect_uri"]:
            return None
        return self._tokens(now, {"nonce": asked["nonce"]})

    def _is_client(self, authorization: str) -> bool:
        return b64decode(authorization.removeprefix("Basic ")).decode() == f"{CLIENT_ID}:{CLIENT_SECRET}"

    def device_code(self, form: dict[str, str], authorization: str) -> dict[str, Any] | None:
        """The answer of the device authorization endpoint (RFC 8628, 3.2)."""
        if not self._is_client(authorization) or "openid" not in form.get("scope", "").split():
            return None
        code = secrets.token_urlsafe(16)
        self.device_codes.add(code)
        url = f"{self.issuer}/device"
        known = {"device_code": code, "user_code": "WDJB-MJHT", "verification_uri": url, "expires_in": 600, "interval": 5}
        return {**known, "verification_uri_complete": f"{url}?user_code=WDJB-MJHT", **self.device}

    def device_token(self, form: dict[str, str], authorization: str, now: int) -> dict[str, Any] | str:
        """The answer of the token endpoint for a device, or the error (RFC 8628, 3.5)."""
        if not self._is_client(authorization) or form.get("device_code") not in self.device_codes:
            return "invalid_grant"
        if self.errors:
            return self.errors.pop(0)
        self.device_codes.discard(form["device_code"])
        return self._tokens(now, {})

    def _tokens(self, now: int, more: dict[str, str]) -> dict[str, Any]:
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "sub": "248289761001",
            "exp": now + 300,
            "iat": now,
            **more,
            "auth_time": now,
            "preferred_username": "jana",
            "name": "Jana Maes",
            "groups": ["staff", "kbc-approvers"],
            **self.claims,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        id_token = jwt.encode({"alg": self.algorithm, "kid": self.published.kid}, claims, self.key, algorithms=[self.algorithm])
        return {"access_token": "x", "token_type": "Bearer", "expires_in": 300, "id_token": id_token}


@contextmanager
def oidc_provider(clock: Any) -> Iterator[OidcProvider]:
    """A running provider, whose time is the clock's."""
    key = RSAKey.generate_key(2048, auto_kid=True)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths = {"authorization_endpoint": "/authorize", "token_endpoint": "/token", "jwks_uri": "/jwks"}
            paths |= {"device_authorization_endpoint": "/device_authorization"}
            urls = {name: f"{provider.issuer}{path}" for name, path in paths.items()}
            documents: dict[str, dict[str, Any]] = {
                "/.well-known/openid-configuration": {"issuer": provider.issuer, **urls},
                "/jwks": {"keys": [provider.published.as_dict(private=False)]},
            }
            self._answer(documents.get(self.path))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            form = {name: values[0] for name, values in parse_qs(body).items()}
            authorization, now = self.headers.get("Authorization", ""), int(clock().timestamp())
            if self.path == "/device_authorization":
                self._answer(provider.device_code(form, authorization))
            elif form.get("grant_type") == "urn:ietf:params:oauth:grant-type:device_code":
                self._answer(provider.device_token(form, authorization, now))
            else:
                self._answer(provider.token(form, authorization, now))

        def _answer(self, document: dict[str, Any] | str | None) -> None:
            is_good = isinstance(document, dict)
            content = json.dumps(document if is_good else {"error": document or "invalid_grant"}).encode()
            self.send_response(200 if is_good else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    provider = OidcProvider(f"http://127.0.0.1:{server.server_port}", key, key)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
