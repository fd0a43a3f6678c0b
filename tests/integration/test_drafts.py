"""Drafts: a template with a text that is still to be written is neither approved nor used."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dispatcher.campaigns import submission, template_approval
from dispatcher.campaigns.new_template import write_skeleton
from dispatcher.content import Catalog, NewTemplate
from dispatcher.domain.message import Kind
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.runtime.services import Services
from tests.support.services import Clock, add_people, load_edited, make_services, person

LEFT = r"of its texts are still to be written, the first at spring/de/email.html, line [34]: `dispatcher templates check spring`"


@pytest.fixture
def services(database: str) -> Iterator[Services]:
    with make_services(database, Clock(), approved=False) as made:
        add_people(made, person("c-1", 1))
        yield made


def drafted(folder: Path, source: str, kind: Kind) -> Catalog:
    write_skeleton(folder, NewTemplate("spring", source, "Jana"), kind)
    return load_edited(folder)


def test_a_draft_is_not_approved(services: Services, tmp_path: Path) -> None:
    services = replace(services, catalog=drafted(tmp_path, "loan_offer", Kind.COMMERCIAL))
    with pytest.raises(BadInput, match=LEFT):
        template_approval.set_approval(services, "spring", True, "Bart")
    assert template_approval.history(services, "spring") == []


@pytest.mark.parametrize("four_eyes", [True, False])
def test_a_draft_is_sent_neither_as_an_offer_nor_as_a_service(services: Services, tmp_path: Path, four_eyes: bool) -> None:
    services = replace(services, policy=replace(services.policy, four_eyes_templates=four_eyes))
    for source, kind in (("loan_offer", Kind.COMMERCIAL), ("optout_acknowledgement", Kind.SERVICE)):
        services = replace(services, catalog=drafted(tmp_path / kind, source, kind))
        offer = {"project": "x", "amount": 1, "offer_url": "https://www.kbc-bank.example/loan"} if kind is Kind.COMMERCIAL else {}
        form = {"id": "c", "template": "spring", "channels": ["sms"], "audience": [{"recipient": "c-1", "data": offer}]}
        parsed = parse_campaign(form, submission.validation_context(services))
        with pytest.raises(BadInput, match=LEFT):
            submission.submit(services, parsed)
        with pytest.raises(BadInput, match=LEFT):
            submission.accept_trigger(services, {"key": "k", "recipient": "c-1", "template": "spring", "data": offer})
