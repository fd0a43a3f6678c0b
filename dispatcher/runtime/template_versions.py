"""Template versions by digest, from the ledger: every process sends the version that was accepted, whatever its folder holds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from dispatcher import content
from dispatcher.content import Catalog, InvalidTemplates, Template
from dispatcher.domain.message import Kind
from dispatcher.ledger.campaigns import template_approvals, template_sources
from dispatcher.ledger.campaigns.template_sources import TemplateSource
from dispatcher.ledger.connection import Connection, Pool, lend
from dispatcher.policy import Policy
from dispatcher.runtime.consistency import disagreements

VERSIONS_MAX = 200  # compiled versions that a process keeps; one has some hundred kB


class TemplateUnavailable(Exception):
    """A template version that cannot be used. The message is part of a sentence, and has no personal data."""


@dataclass(frozen=True, slots=True)
class TemplateVersions:
    """The versions that this process has compiled, each at its first use. `random` as for `content.load`."""

    random: Callable[[], float] | None = None
    _compiled: dict[str, Template] = field(default_factory=dict)
    _stored: set[str] = field(default_factory=set)  # digests whose source the ledger has

    def get(self, digest: str) -> Template | None:
        """A version that was loaded before; else None."""
        return self._compiled.get(digest)

    def load(self, pool: Pool, policy: Policy, catalog: Catalog, digests: Mapping[str, str]) -> Mapping[str, Template]:
        """These versions (template -> digest) by digest: from memory, else from the folder's `catalog`, else from the ledger.

        Raises `TemplateUnavailable`, and `LedgerUnavailable`. A version in memory costs no statement.
        """
        missing = {name: digest for name, digest in digests.items() if digest not in self._compiled}
        if missing:
            loaded = {each: catalog[name] for name, each in missing.items() if name in catalog and catalog[name].digest == each}
            rest = {name: digest for name, digest in missing.items() if digest not in loaded}
            loaded |= self._from_ledger(pool, policy, rest) if rest else {}
            for digest in [each for each in self._compiled if each not in set(digests.values())][:-VERSIONS_MAX]:
                self._compiled.pop(digest, None)
            self._compiled.update(loaded)
        return self._compiled

    def store(self, connection: Connection, templates: Collection[Template]) -> None:
        """As `store_sources`, and without a statement for what this process stored before. Not in a transaction, which may be
        rolled back."""
        missing = [template for template in templates if template.digest not in self._stored]
        if missing:
            store_sources(connection, missing)
            self._stored.update(template.digest for template in missing)

    def _from_ledger(self, pool: Pool, policy: Policy, digests: Mapping[str, str]) -> dict[str, Template]:
        with lend(pool) as connection:
            sources = template_sources.find(connection, digests.values())
        return {digest: self._compile(policy, name, digest, sources.get(digest)) for name, digest in digests.items()}

    def _compile(self, policy: Policy, name: str, digest: str, source: Mapping[str, str] | None) -> Template:
        which = f"the approved version {digest[:12]} of {name} can't be loaded"
        if source is None:
            raise TemplateUnavailable(f"{which}: the ledger does not have its source")
        try:
            template = content.load_version(source, self.random)
        except InvalidTemplates as error:
            raise TemplateUnavailable(f"{which}: {error.faults[0]}") from None
        if (template.name, template.digest) != (name, digest):
            raise TemplateUnavailable(f"{which}: its source has another digest")
        if faults := disagreements(policy, [template]):
            raise TemplateUnavailable(f"{which}: {faults[0]}")
        return template


def needs_approval(template: Template, policy: Policy) -> bool:
    """Whether the policy asks for an approval of this template."""
    return policy.four_eyes_templates and template.info.kind is Kind.COMMERCIAL


def name_open_versions(connection: Connection, policy: Policy, catalog: Catalog) -> int:
    """Give the open campaigns of an older revision, which name no version, the folder's versions; returns their number.

    Only a version that may be sent is named, and its source is stored. A campaign whose templates are not all among them stays as
    it is: by name, and paused by the worker that finds no approval.
    """
    in_force = template_approvals.in_force(connection, list(catalog))
    sendable = [each for each in catalog.values() if each.digest in in_force or not needs_approval(each, policy)]
    store_sources(connection, sendable)
    return template_sources.name_versions(connection, digests_of(sendable))


def digests_of(templates: Collection[Template]) -> dict[str, str]:
    """Template -> digest."""
    return {template.name: template.digest for template in templates}


def store_sources(connection: Connection, templates: Collection[Template]) -> None:
    """Store the sources of these templates where the ledger does not have them."""
    template_sources.store(connection, [TemplateSource(each.digest, each.name, each.source) for each in templates])
