"""Sign-in with an identity provider on a machine without a browser: the device authorization grant (RFC 8628).

The person opens a URL on any other device and enters a code. Meanwhile this program asks the provider again and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx2
import structlog
from authlib.integrations.httpx_client import OAuth2Client

from dispatcher.identity.oidc import SignInFailed, check_token, open_client, provider_metadata, store_person
from dispatcher.runtime.oidc_settings import OidcSettings
from dispatcher.runtime.services import Services

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
INTERVAL_SECONDS = 5.0  # RFC 8628, 3.2: where the provider names none
SLOWER_SECONDS = 5.0  # RFC 8628, 3.5: added for each slow_down
INTERVAL_SECONDS_MAX = 60.0
LIFETIME_SECONDS_MAX = 30 * 60  # whatever the provider says
ENDED = {  # RFC 8628, 3.5; what any other error means, the provider does not say
    "access_denied": "the sign-in was refused",
    "expired_token": "nobody entered the code in time",
}

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class DeviceGrant:
    """What the person needs, and what this program asks with. `url_with_code` has the code in it, where the provider gives that."""

    url: str
    code: str
    url_with_code: str
    ends_at: datetime
    interval_seconds: float
    device_code: str = field(repr=False)


def begin(services: Services, config: OidcSettings) -> DeviceGrant:
    """Ask the provider for a code. Raises `SignInFailed`."""
    with open_client(services, config) as client:
        endpoint = provider_metadata(client, config).get("device_authorization_endpoint")
        if not endpoint:
            raise SignInFailed("the identity provider has no sign-in for devices (RFC 8628)")
        answer = _post(client, str(endpoint), {"client_id": config.client_id, "scope": "openid profile email"})
    if answer is None:
        raise SignInFailed("the identity provider does not answer")
    try:
        url, lifetime = str(answer["verification_uri"]), float(answer["expires_in"])
        with_code = str(answer.get("verification_uri_complete") or "")
        code, device_code = str(answer["user_code"]), str(answer["device_code"])
        interval = float(answer.get("interval") or INTERVAL_SECONDS)
    except (KeyError, TypeError, ValueError):
        raise SignInFailed("the identity provider's answer cannot be used") from None
    if not all(urlsplit(each).scheme in ("http", "https") for each in (url, *([with_code] if with_code else []))):
        raise SignInFailed("the identity provider's answer cannot be used")
    ends_at = services.clock() + timedelta(seconds=min(lifetime, LIFETIME_SECONDS_MAX))
    return DeviceGrant(url, code, with_code, ends_at, min(max(interval, 1.0), INTERVAL_SECONDS_MAX), device_code)


def wait(services: Services, config: OidcSettings, grant: DeviceGrant) -> tuple[str, datetime]:
    """Ask until the person has signed in: the id of the person, and when the person proved at the provider who it is.

    Raises `SignInFailed`, and `NotAllowed` without a group.
    """
    interval = grant.interval_seconds
    form = {"grant_type": GRANT, "device_code": grant.device_code, "client_id": config.client_id}
    with open_client(services, config) as client:
        endpoint = str(provider_metadata(client, config)["token_endpoint"])
        while services.clock() < grant.ends_at:
            services.sleep(interval)
            answer = _post(client, endpoint, form)
            error = answer.get("error") if answer is not None else "no_answer"
            if answer is not None and not error:
                claims, proved_at = check_token(services, config, client, str(answer.get("id_token", "")))
                return store_person(services, config, claims), proved_at
            if error == "slow_down":
                interval += SLOWER_SECONDS
            elif error == "no_answer":  # RFC 8628, 3.5: after a connection that failed, ask half as often
                interval = min(interval * 2, INTERVAL_SECONDS_MAX)
            elif error != "authorization_pending":
                log.warning("a sign-in by the identity provider failed", fault=str(error)[:100])
                raise SignInFailed(ENDED.get(str(error), "the identity provider did not sign you in"))
    raise SignInFailed(ENDED["expired_token"])


def _post(client: OAuth2Client, url: str, form: Mapping[str, str]) -> dict[str, Any] | None:
    """The answer of an endpoint; None where it cannot be reached, or answers with something else than a JSON object."""
    try:
        answer = client.request(
            "POST", url, data=dict(form), withhold_token=True, auth=client.client_auth(client.token_endpoint_auth_method)
        ).json()
    except (httpx2.HTTPError, ValueError):
        return None
    return answer if isinstance(answer, dict) else None
