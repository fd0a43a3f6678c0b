"""Console sessions in cookies: a sealed cookie carries the id of the session, which the ledger stores.

A second cookie marks a browser in which a person has signed in before: there, this person is not held up by the failures of others
at the same address, who could else lock people out.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from dispatcher.consent.link_tokens import BadToken, seal, unseal
from dispatcher.domain.derived_keys import KeyRing, derive
from dispatcher.domain.local_times import zone_names
from dispatcher.domain.principal import Principal
from dispatcher.domain.recipient import LANGUAGES
from dispatcher.identity import sessions
from dispatcher.identity.sessions import CONSOLE, Credentials, Origin, SignedIn
from dispatcher.identity.users import user_id
from dispatcher.runtime.services import Services
from dispatcher.web.console.viewer import Viewer
from dispatcher.web.public.link_route import accepted

COOKIE = "dispatcher_console"
BROWSER_COOKIE = "dispatcher_browser"
BROWSER_SECONDS = 180 * 86_400
_PURPOSE = "console"
_BROWSER_PURPOSE = "console-browser"


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """A signed-in person, and how pages are shown to them. `form_token` proves that a form came from a page of this session."""

    signed_in: SignedIn
    form_token: str = field(repr=False)
    viewer: Viewer

    @property
    def principal(self) -> Principal:
        """Who it is."""
        return self.signed_in.principal


def begin(services: Services, given: Credentials, address: str, browser: str) -> tuple[str, str] | None:
    """The cookies of a new session and of its browser; None for a wrong name, password or code. Raises `TooManyFailures`.

    `address` is the client's, `browser` its second cookie, if any.
    """
    session_id = sessions.sign_in(services, given, origin(services, given.name, address, browser))
    return cookies(services, session_id, user_id(given.name)) if session_id is not None else None


def cookies(services: Services, session_id: bytes, user: str) -> tuple[str, str]:
    """The cookies of a session and of its browser."""
    return seal(services.secret, _PURPOSE, session_id), seal(services.secret, _BROWSER_PURPOSE, user.encode())


def origin(services: Services, name: str, address: str, browser: str) -> Origin:
    """Where a browser is, and whether this person has signed in with it before."""
    return Origin(CONSOLE, address, _is_known(services.secret, browser, user_id(name)))


def _is_known(secret: KeyRing, browser: str, user: str) -> bool:
    try:
        return hmac.compare_digest(unseal(secret, _BROWSER_PURPOSE, browser), user.encode("utf-8", "surrogatepass"))
    except BadToken:
        return False


def user_of_browser(services: Services, browser: str) -> str:
    """Who signed in with this browser last; "" where that is not known."""
    try:
        return unseal(services.secret, _BROWSER_PURPOSE, browser).decode()
    except BadToken:
        return ""


def resume(services: Services, cookie: str, is_automatic: bool = False, languages: str = "") -> ConsoleSession | None:
    """The session of a cookie; None where it is not ours, or is over. An automatic request does not keep it from being idle.

    `languages` is the header Accept-Language, for a person who chose no language.
    """
    try:
        session_id = unseal(services.secret, _PURPOSE, cookie)
    except BadToken:
        return None
    signed_in = sessions.resume(services, session_id, CONSOLE, is_automatic)
    if signed_in is None:
        return None
    form_token = hmac.digest(derive(services.secret.newest, "console-form"), cookie.encode(), "sha256").hex()
    return ConsoleSession(signed_in, form_token, _viewer(services, signed_in, languages))


def _viewer(services: Services, signed_in: SignedIn, languages: str) -> Viewer:
    language = next((each for each in LANGUAGES if each == signed_in.language), None) or accepted(languages)
    zone = signed_in.zone if signed_in.zone in zone_names() else services.policy.default_zone
    return Viewer(language, zone)


def same(one: str, other: str) -> bool:
    """Whether two tokens are equal, in constant time."""
    return hmac.compare_digest(one.encode(), other.encode("utf-8", "surrogatepass"))
