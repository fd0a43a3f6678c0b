"""Previews and checks name the sender as messages do: in the reader's language, where its name has another length."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from channels.base import Channel, Sms
from dispatcher import policy
from dispatcher.content import load, load_version, read_folder, sms_sizes
from dispatcher.domain.recipient import LANGUAGES, Language
from dispatcher.runtime.consistency import disagreements
from dispatcher.runtime.entity_senders import entity_sender, senders_of
from dispatcher.runtime.template_lint import lint_folder
from dispatcher.runtime.template_previews import MessageSelection, message_preview
from tests.support.services import templates
from tests.support.template_folder import DECLARATION, small_folder, write

POLICY = policy.parse(policy.shipped())
ENTITY = "kbc-insurance"  # the names: KBC Verzekeringen, KBC Assurances, KBC Versicherungen, KBC Insurance
NAMES = POLICY.entities[ENTITY].names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A template whose SMS has one segment with the name of 13 characters, and two with a longer one."""
    files = small_folder()
    declared = DECLARATION.replace("kbc-bank", ENTITY).replace('topic = "', 'sms = { segments_max = 1 }\ntopic = "')
    files["hello/template.toml"] = declared
    template = load_version(read_folder(write(tmp_path / "short", files))[0])
    for language in LANGUAGES:
        shown = message_preview(POLICY, template, MessageSelection(Channel.SMS, language, min(template.info.modes)))
        assert isinstance(shown.content, Sms)
        name = f"hello/{language}/texts.toml"
        files[name] = files[name].replace("{{ sender.name }}:", f"{{{{ sender.name }}}}:{'x' * missing(shown.content, language)}")
    return write(tmp_path / "templates", files)


def missing(sms: Sms, language: Language) -> int:
    """How many characters the text lacks to fill a segment with the shortest name."""
    return 160 - len(sms.text) + len(NAMES[language]) - len(NAMES["en"])


def test_an_sms_is_counted_with_the_name_of_its_language(folder: Path) -> None:
    template = load(folder)["hello"]
    counted = {(language, segments.count) for _, language, _, segments in sms_sizes(template, senders_of(POLICY, template))}
    assert counted == {("nl", 2), ("fr", 2), ("de", 2), ("en", 1)}
    longer = {f"hello/{language}/texts.toml" for language in ("nl", "fr", "de")}
    assert {each.file for each in lint_folder(POLICY, folder) if "segments_max" in each.message} == longer
    assert {each.file for each in disagreements(POLICY, [template]) if "segments_max" in each.message} == longer


def test_a_preview_is_the_message_of_the_entity() -> None:
    for template in templates().values():
        entity = POLICY.entities[template.entity]
        for language, mode in product(LANGUAGES, sorted(template.info.modes)):
            expected = entity_sender(entity, template.entity, language)
            assert senders_of(POLICY, template)[language] == expected
            shown = message_preview(POLICY, template, MessageSelection(Channel.EMAIL, language, mode))
            assert shown.email is not None
            assert shown.email.sender_name == entity.names[language]
            assert entity.names[language] in shown.email.text
