"""Who acts: people and services, their roles, and what each role may do. Pure: standard library only.

The tables here are the only place that says which role may do what. The console, the command line and the API ask `require`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.person_names import is_same_name

USER_PREFIX, KEY_PREFIX, ACCOUNT_PREFIX = "user:", "api:", "os:"
Entities = frozenset[str] | None  # what a principal is limited to; None stands for all


class PrincipalKind(StrEnum):
    """A person who signs in, or a program."""

    USER = "user"
    SERVICE = "service"


class Right(StrEnum):
    """What somebody may do, by a role or by the entry of an API key: see `RIGHT_MEANINGS`."""

    CAMPAIGNS = "campaigns"
    MESSAGES = "messages"
    RECIPIENTS = "recipients"
    PREFERENCES = "preferences"
    SUPPRESSIONS = "suppressions"
    TEMPLATES = "templates"  # approve templates, and withdraw approvals
    EVENTS = "events"  # read the feed of events
    WEBHOOKS = "webhooks"  # manage the endpoints that events are delivered to
    CONSOLE = "console"  # see the console's pages without personal data
    METRICS = "metrics"  # read /metrics, where DISPATCHER_METRICS_ACCESS is "key"
    PAUSE = "pause"  # pause, resume and cancel campaigns
    RELEASE = "release"  # the second person of a campaign
    PEOPLE = "people"  # look at single customers and their messages
    INBOUND = "inbound"  # read, answer and close inbound messages
    OPERATE = "operate"  # settle unresolved messages, replay dead ones, close refused jobs
    ERASE = "erase"
    POLICY = "policy"  # put another policy in force
    USERS = "users"  # add people, change their roles, end their sessions
    AUDIT = "audit"  # read the audit log


RIGHT_MEANINGS: Mapping[Right, str] = {
    Right.CAMPAIGNS: "submit and edit campaigns and recurring campaigns, upload audiences and conversions, send tests of templates",
    Right.MESSAGES: "send single messages and cancel them; read messages by API",
    Right.RECIPIENTS: "import, add and read recipients",
    Right.PREFERENCES: "read and change customers' choices",
    Right.SUPPRESSIONS: "import, search, lift and export suppressions",
    Right.TEMPLATES: "approve templates, and withdraw approvals",
    Right.EVENTS: "read the feed of events",
    Right.WEBHOOKS: "manage the endpoints that events are delivered to",
    Right.CONSOLE: "see the console's pages without personal data; an API key with it opens nothing",
    Right.METRICS: "read `/metrics`, where `DISPATCHER_METRICS_ACCESS` is `key`",
    Right.PAUSE: "pause, resume and cancel campaigns and recurring campaigns",
    Right.RELEASE: "release campaigns, and approve recurring campaigns, of somebody else",
    Right.PEOPLE: "look at single customers and their messages in the console",
    Right.INBOUND: "read, answer and close inbound messages",
    Right.OPERATE: "settle unresolved messages, replay dead ones, close refused jobs",
    Right.ERASE: "erase recipients",
    Right.POLICY: "put another policy in force",
    Right.USERS: "add people, change their roles, end their sessions",
    Right.AUDIT: "read the audit log",
}


class Role(StrEnum):
    """What a person's job is."""

    MARKETER = "marketer"
    APPROVER = "approver"
    DESK = "desk"
    COMPLIANCE = "compliance"
    OPERATOR = "operator"
    ADMIN = "admin"
    AUDITOR = "auditor"


ROLE_RIGHTS: Mapping[Role, frozenset[Right]] = {
    Role.MARKETER: frozenset({Right.CONSOLE, Right.CAMPAIGNS, Right.PAUSE, Right.MESSAGES}),
    Role.APPROVER: frozenset({Right.CONSOLE, Right.RELEASE, Right.PAUSE, Right.TEMPLATES}),
    Role.DESK: frozenset({Right.CONSOLE, Right.PEOPLE, Right.PREFERENCES, Right.INBOUND}),
    Role.COMPLIANCE: frozenset(
        {
            *(Right.CONSOLE, Right.PEOPLE, Right.RECIPIENTS, Right.PREFERENCES, Right.SUPPRESSIONS, Right.INBOUND),
            *(Right.ERASE, Right.POLICY, Right.AUDIT),
        }
    ),
    Role.OPERATOR: frozenset(
        {
            *(Right.CONSOLE, Right.PEOPLE, Right.RECIPIENTS, Right.OPERATE, Right.PAUSE),
            *(Right.WEBHOOKS, Right.EVENTS, Right.METRICS),
        }
    ),
    Role.ADMIN: frozenset({Right.CONSOLE, Right.USERS, Right.AUDIT, Right.WEBHOOKS, Right.METRICS}),
    Role.AUDITOR: frozenset({Right.CONSOLE, Right.PEOPLE, Right.EVENTS, Right.METRICS, Right.AUDIT}),
}

# What a right in the file of API keys meant before there were roles, and still means.
_KEY_RIGHTS: Mapping[Right, frozenset[Right]] = {
    Right.CAMPAIGNS: frozenset({Right.RELEASE, Right.PAUSE}),
    Right.RECIPIENTS: frozenset({Right.ERASE, Right.PEOPLE}),
    Right.MESSAGES: frozenset({Right.PEOPLE}),
}


# These concern all entities at once: whoever is limited to some entities does not have them. An administrator of one entity could
# else give themselves the others, and an endpoint for events would get the events of all.
UNLIMITED_RIGHTS = frozenset({Right.USERS, Right.POLICY, Right.EVENTS, Right.WEBHOOKS, Right.SUPPRESSIONS})


@dataclass(frozen=True, slots=True)
class Principal:
    """A person or a service. `id` is what the ledger records; two of them are two people for four eyes.

    `entities` are those whose campaigns and customers it may see; None stands for all.
    """

    id: str
    name: str
    kind: PrincipalKind
    roles: frozenset[Role] = frozenset()
    entities: Entities = None
    rights: frozenset[Right] = field(default=frozenset())

    def may(self, right: Right, entity: str | None = None) -> bool:
        """Whether it has the right, for this entity where one is given."""
        return right in self.rights and (entity is None or self.entities is None or entity in self.entities)


def person(id_: str, name: str, roles: Iterable[Role], entities: Entities = None) -> Principal:
    """The principal of a person with these roles."""
    held = frozenset(roles)
    rights = frozenset(right for role in held for right in ROLE_RIGHTS[role])
    return Principal(id_, name, PrincipalKind.USER, held, entities, limited(rights, entities))


def service(name: str, rights: Iterable[Right], entities: Entities = None) -> Principal:
    """The principal of an API key: a service account."""
    named = frozenset(rights)
    held = named.union(*(_KEY_RIGHTS.get(right, frozenset()) for right in named))
    return Principal(f"{KEY_PREFIX}{name}", name, PrincipalKind.SERVICE, entities=entities, rights=limited(held, entities))


def limited(rights: frozenset[Right], entities: Entities) -> frozenset[Right]:
    """The rights that are left to whoever is limited to these entities."""
    return rights if entities is None else rights - UNLIMITED_RIGHTS


def account_principal(name: str) -> Principal:
    """The principal of an account of the operating system, for an installation in which nobody signs in yet."""
    return Principal(f"{ACCOUNT_PREFIX}{name or 'unknown'}", name, PrincipalKind.SERVICE, rights=frozenset(Right))


def is_same_principal(one: str, other: str) -> bool:
    """Whether two ids of principals are those of one person or service, for four eyes.

    The ledger also has ids without a kind: names of API keys, and what people called themselves before there were users. Such a
    name counts as the same as an id that ends with it, so that nobody is two people by that.
    """
    if one == other:
        return True
    return not (is_full_id(one) and is_full_id(other)) and is_same_name(one.rpartition(":")[2], other.rpartition(":")[2])


def is_author(author: str, actor: str, names: Iterable[str] = ()) -> bool:
    """Whether who acts is the author that a template names. An id, such as "user:jana", is that of one person or service, whatever
    their names are now; a name is compared with the actor's `names`, and so may be that of two people."""
    if is_full_id(author.strip()):
        return is_same_principal(author.strip(), actor)
    return any(is_same_name(each, author) for each in (actor, *names))


def is_full_id(text: str) -> bool:
    """Whether an id says of which kind it is."""
    return text.startswith((USER_PREFIX, KEY_PREFIX, ACCOUNT_PREFIX))


def require_unlimited(principal: Principal) -> None:
    """For what concerns all entities at once: raise `NotAllowed` where the principal is limited to some."""
    if principal.entities is not None:
        raise NotAllowed(f"{principal.name} is limited to some entities: this concerns all of them")


def require(principal: Principal, right: Right, entity: str | None = None) -> None:
    """Raise `NotAllowed` where the principal lacks the right, or has it for other entities only."""
    if right not in principal.rights and right in UNLIMITED_RIGHTS and principal.entities is not None:
        raise NotAllowed(f"{principal.name} is limited to some entities: the right {right.value!r} concerns all of them")
    if right not in principal.rights:
        able = [role.value for role, rights in ROLE_RIGHTS.items() if right in rights]
        who = f"; these roles have it: {', '.join(able)}" if principal.kind is PrincipalKind.USER else ""
        raise NotAllowed(f"{principal.name} lacks the right {right.value!r}{who}")
    if not principal.may(right, entity):
        raise NotAllowed(f"{principal.name} lacks the right {right.value!r} for the entity {entity!r}")
