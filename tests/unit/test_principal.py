"""Principals: rights of roles and keys, entities, and who is the same one for four eyes."""

from __future__ import annotations

import pytest

from dispatcher.domain.errors import NotAllowed
from dispatcher.domain.principal import RIGHT_MEANINGS, ROLE_RIGHTS, Right, Role, is_same_principal, person, require, service


def test_a_right_is_held_by_role_and_for_an_entity() -> None:
    bart = person("user:bart", "Bart", [Role.APPROVER], frozenset({"kbc-bank"}))
    require(bart, Right.RELEASE)
    require(bart, Right.RELEASE, "kbc-bank")
    with pytest.raises(NotAllowed, match="for the entity 'cbc-banque'"):
        require(bart, Right.RELEASE, "cbc-banque")
    with pytest.raises(NotAllowed, match="these roles have it: marketer"):
        require(bart, Right.CAMPAIGNS, "kbc-bank")


def test_no_role_submits_and_releases_and_an_auditor_only_reads() -> None:
    assert set(RIGHT_MEANINGS) == set(Right)
    assert set(ROLE_RIGHTS) == set(Role)
    assert not any({Right.CAMPAIGNS, Right.RELEASE} <= rights for rights in ROLE_RIGHTS.values())
    assert ROLE_RIGHTS[Role.AUDITOR] <= {Right.CONSOLE, Right.PEOPLE, Right.EVENTS, Right.METRICS, Right.AUDIT}
    assert Right.RELEASE in service("shop", [Right.CAMPAIGNS]).rights  # as before there were roles
    assert Right.RELEASE not in service("shop", [Right.MESSAGES]).rights


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("user:bart", "user:bart", True),
        ("user:bart", "user:bert", False),
        ("user:bart", "api:bart", False),
        ("api:shop", "shop", True),  # the API stores the name of a key, the command line its id
        ("user:bart", " BART ", True),  # recorded before there were users
        ("user:bart", "Bart Peeters", False),
        ("os:root", "user:local", False),
        ("", "user:bart", False),
    ],
)
def test_four_eyes_compare_principals(one: str, other: str, same: bool) -> None:
    assert is_same_principal(one, other) is is_same_principal(other, one) is same
