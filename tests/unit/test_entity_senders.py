"""Previews and checks name the sender as messages do: in the reader's language, where its name has another length."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from channels.base import Channel, Sms
from dispatcher import policy
from dispatcher.content import Template, count_segments, load, load_version, read_folder, sms_sizes
from dispatcher.domain.message import Mode
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.runtime.consistency import disagreements
from dispatcher.runtime.entity_senders import entity_sender, senders_of
from dispatcher.runtime.template_lint import lint_folder
from dispatcher.runtime.template_previews import MessageSelection, message_preview
from tests.support.services import templates
from tests.support.sound_templates import sound_folder
from tests.support.template_folder import write

GSM_7_TWO_SEGMENTS = 306
SHIPPED = policy.parse(policy.shipped())
NAMES = SHIPPED.entities["kbc-insurance"].names  # KBC Verzekeringen, KBC Assurances, KBC Versicherungen, KBC Insurance
BANK = replace(SHIPPED.entities["kbc-bank"], names=NAMES)
POLICY = replace(SHIPPED, entities={**SHIPPED.entities, "kbc-bank": BANK})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A template whose SMS has one segment with the name of 13 characters, and two with a longer one."""
    files = sound_folder()
    files["offer/template.toml"] = files["offer/template.toml"].replace('topic = "', 'sms = { segments_max = 2 }\ntopic = "')
    template = load_version(read_folder(write(tmp_path / "short", files))[0])
    for language in LANGUAGES:
        name = f"offer/{language}/texts.toml"
        padding = "x" * (GSM_7_TWO_SEGMENTS - length(template, language) + len(NAMES[language]) - len(NAMES["en"]))
        files[name] = files[name].replace("{{ sender.name }}:", f"{{{{ sender.name }}}}:{padding}")
    return write(tmp_path / "templates", files)


def length(template: Template, language: Language) -> int:
    shown = message_preview(POLICY, template, MessageSelection(Channel.SMS, language, Mode.STANDARD))
    assert isinstance(shown.content, Sms), shown.refused
    return count_segments(shown.content.text).units


def test_an_sms_is_counted_with_the_name_of_its_language(folder: Path) -> None:
    template = load(folder)["offer"]
    counted = {(language, segments.count) for _, language, _, segments in sms_sizes(template, senders_of(POLICY, template))}
    assert counted == {("nl", 3), ("fr", 3), ("de", 3), ("en", 2)}
    longer = {f"offer/{language}/texts.toml" for language in ("nl", "fr", "de")}
    assert {each.file for each in lint_folder(POLICY, folder) if "segments_max" in each.message} == longer
    assert {each.file for each in disagreements(POLICY, [template]) if "segments_max" in each.message} == longer


def test_a_preview_is_the_message_of_the_entity() -> None:
    for template in templates().values():
        entity = SHIPPED.entities[template.entity]
        for language, mode in product(LANGUAGES, sorted(template.info.modes)):
            expected = entity_sender(entity, template.entity, language)
            assert senders_of(SHIPPED, template)[language] == expected
            shown = message_preview(SHIPPED, template, MessageSelection(Channel.EMAIL, language, mode))
            assert shown.email is not None
            assert shown.email.sender_name == entity.names[language]
            assert entity.names[language] in shown.email.text
