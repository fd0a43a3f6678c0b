"""Explain why a message was sent or not, in sentences that a customer understands (GDPR art. 15, 22; CJEU C-203/22).

The explanation uses only the record of the decision, so it stays true when choices change later. The policy gives only
names and numbers: pass the one whose digest is in the record.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from channels.base import Channel
from dispatcher.domain.decision import Hold, Permission, Reason, ReasonCode, Refuse, Send, headline
from dispatcher.domain.message import Mode, State
from dispatcher.domain.recipient import Language
from dispatcher.policy.case import RENEWAL, zone_of
from dispatcher.policy.data import Policy
from dispatcher.policy.explanations import messages
from dispatcher.policy.record import DecisionRecord, from_record

Sentences = tuple[str, ...]  # sentences

NEVER_HANDED_OFF = frozenset({State.REFUSED, State.EXPIRED, State.CANCELLED, State.HELD_OUT})
# No other reason is shown together with these: nothing else is known about such a person.
SUFFICIENT_REASONS = frozenset({ReasonCode.ERASED, ReasonCode.UNKNOWN_RECIPIENT})
# Without a choice there is no basis either: that reason would add nothing.
CODES_THAT_IMPLY_NO_BASIS = frozenset({ReasonCode.CHOICE_NONE, ReasonCode.NO_CHOICE})


@dataclass(frozen=True, slots=True)
class Explanation:
    """The sentences, by question. `text` joins all of them in order."""

    language: Language
    what: Sentences  # what happened to the message
    why: Sentences
    data: Sentences  # which data was used to write it
    change: Sentences  # what would have led to another outcome
    who: Sentences  # who sent it, on whose behalf
    contact: Sentences  # how to reach a person

    @property
    def text(self) -> str:
        """All sentences, one paragraph per part."""
        parts = (self.what, self.why, self.data, self.change, self.who, self.contact)
        return "\n".join(" ".join(part) for part in parts if part)


def explain(
    document: Mapping[str, Any],
    language: Language,
    policy: Policy,
    state: State | None = None,
    reason: str | None = None,
    channel: Channel | None = None,
) -> Explanation:
    """Explain one recorded decision. `state` and `reason` say what happened to the message afterwards.

    `reason` is a `ReasonCode` or a provider's code. `channel` selects one message of a decision with several permissions.
    """
    explainer = _Explainer(from_record(document), language, policy, channel)
    state = state or _state_of(explainer.recorded)
    permissions = explainer.permissions if state not in NEVER_HANDED_OFF else ()
    return Explanation(
        language=language,
        what=explainer.what(state, reason),
        why=explainer.permission_texts(permissions) if permissions else explainer.objections(reason),
        data=explainer.data() if permissions else (),
        change=explainer.change(permissions, reason),
        who=explainer.who(),
        contact=explainer.contact(),
    )


def _state_of(recorded: DecisionRecord) -> State:
    match recorded.decision:
        case Send():
            return State.PENDING
        case Hold():
            return State.HELD
        case Refuse(reasons):
            known = {ReasonCode.EXPIRED: State.EXPIRED, ReasonCode.HELD_OUT: State.HELD_OUT}
            return known.get(headline(reasons).code, State.REFUSED)


class _Explainer:
    """Holds what each sentence needs: the record, the texts of the language, and the policy for names."""

    def __init__(self, recorded: DecisionRecord, language: Language, policy: Policy, channel: Channel | None) -> None:
        self.recorded, self.language, self.policy = recorded, language, policy
        self._texts = messages(language)
        self.entity = policy.entities.get(recorded.entity)
        decision = recorded.decision
        every = decision.permissions if isinstance(decision, Send) else ()
        self.permissions: tuple[Permission, ...] = tuple(each for each in every if each.channel is channel) or every
        self.zone = zone_of(None, policy.default_zone)
        self.by_event = {choice.event: subject for subject, choice in recorded.choices.items()}

    def what(self, state: State, code: str | None) -> Sentences:
        """The state, and the provider's code if there is one."""
        decision = self.recorded.decision
        until = _format_moment(decision.until, self.zone, self._texts["form"]) if isinstance(decision, Hold) else ""
        if state is State.HELD and not until:  # held by something that came after the decision
            state = State.PENDING
        channels = _join([self._texts["channel"][each.channel] for each in self.permissions], self._texts["form"]["and"])
        sentence = self._texts["state"][state].format(channel=channels, until=until)
        if code is None or code in set(ReasonCode):
            return (sentence,)
        return sentence, self._texts["why"]["provider"].format(code=code)

    def permission_texts(self, permissions: tuple[Permission, ...]) -> Sentences:
        """The choice and the basis of a send, and why other channels were not used."""
        text, choice = self._texts["text"], self.recorded.choices.get(f"offers.{self.recorded.offer_type}")
        sentences = []
        if choice is not None:
            key = "choice" if choice.dated else "choice_undated"
            sentences.append(text[key].format(**self._placeholders(f"offers.{self.recorded.offer_type}")))
            if choice.value == Mode.TAILORED and permissions[0].mode is Mode.STANDARD:
                sentences.append(text["as_standard"])
        entity = self._entity_name()
        version = choice.contract_version if choice is not None else ""
        sentences += dict.fromkeys(self._basis(each.basis, entity, version) for each in permissions)
        for reason, channels in self._distinct_reasons():
            sentences += [text["passed_over"].format(channel=self._channels(channels)), self._why(reason, channels)]
        return tuple(sentences)

    def _basis(self, basis: str, entity: str, contract_version: str) -> str:
        key = "contract_version" if basis == "contract" and contract_version else basis
        return str(self._texts["basis"][key].format(entity=entity, version=contract_version))

    def objections(self, code: str | None) -> Sentences:
        """All reasons against the message; after a decision to send, the one reason that came later."""
        if isinstance(self.recorded.decision, Send):
            return self._late_sentence("why", code)
        return tuple(dict.fromkeys(self._why(reason, channels) for reason, channels in self._distinct_reasons()))

    def change(self, permissions: tuple[Permission, ...], code: str | None) -> Sentences:
        """What would have led to another outcome, if one thing alone would have."""
        if permissions:
            if self.recorded.offer_type is None:
                return ()
            return (self._texts["change"]["sent"].format(**self._placeholders(None, [each.channel for each in permissions])),)
        if isinstance(self.recorded.decision, Send):
            return self._late_sentence("change", code)
        distinct = self._distinct_reasons()
        against: dict[Channel, int] = {}
        for _, channels in distinct:
            for channel in channels:
                against[channel] = against.get(channel, 0) + 1
        if against and min(against.values()) > 1:
            return (self._texts["text"]["all"],)
        single = [(reason, [name for name in channels if against[name] == 1]) for reason, channels in distinct]
        all_sentences = (self._phrase("change", reason, channels) for reason, channels in single if channels)
        return tuple(dict.fromkeys(sentence for sentence in all_sentences if sentence))

    def data(self) -> Sentences:
        """The data categories of the text."""
        if not self.recorded.categories:
            return ()
        names = sorted(self._texts["category"].get(name, name) for name in self.recorded.categories)
        sentence = self._texts["text"]["used" if self.recorded.used else "allowed"]
        return (sentence.format(categories=_join(names, self._texts["form"]["and"])),)

    def who(self) -> Sentences:
        """Sender, controllers and processor."""
        text = self._texts["text"]
        sentences = [text["sender"].format(entity=self._entity_name())]
        if self.entity is not None:
            controllers = _join(self.entity.controllers, self._texts["form"]["and"])
            sentences += [text["controllers"].format(controllers=controllers)]
            sentences += [text["processor"].format(processor=self.entity.processor, controllers=controllers)]
        return tuple(sentences)

    def contact(self) -> Sentences:
        """How to reach a person."""
        return (self._texts["text"]["contact"].format(contact=self.entity.contact),) if self.entity else ()

    def _distinct_reasons(self) -> list[tuple[Reason, list[Channel]]]:
        """The reasons to show, strongest first, each once with its channels."""
        reasons = self.recorded.decision.reasons
        codes = {reason.code for reason in reasons}
        merged: dict[tuple[ReasonCode, str], tuple[Reason, list[Channel]]] = {}
        for reason in reasons:
            if reason.code is ReasonCode.NO_BASIS and codes & CODES_THAT_IMPLY_NO_BASIS:
                continue
            # A basis that is missing on several channels is one sentence, though each channel has its own policy key.
            evidence = "" if reason.code is ReasonCode.NO_BASIS else reason.evidence
            merged.setdefault((reason.code, evidence), (reason, []))[1].append(reason.channel)
        rank = list(ReasonCode).index
        distinct = sorted(merged.values(), key=lambda entry: rank(entry[0].code))
        return distinct[:1] if distinct and distinct[0][0].code in SUFFICIENT_REASONS else distinct

    def _late_sentence(self, table: str, code: str | None) -> Sentences:
        """The sentence for a reason that came after the decision to send; none for a provider's code."""
        sentence = self._texts[table].get(code) if code in set(ReasonCode) else None
        return (sentence.format(**self._placeholders(None, [each.channel for each in self.permissions])),) if sentence else ()

    def _why(self, reason: Reason, channels: list[Channel]) -> str:
        return self._phrase("why", reason, channels)

    def _phrase(self, table: str, reason: Reason, channels: list[Channel]) -> str:
        """The sentence for a reason: the most specific one for its evidence; "" if the table has none."""
        subject = self.by_event.get(reason.evidence)
        suffixes = [f"_{channels[0]}"] if len(channels) == 1 else []
        if set(channels) == {Channel.SMS, Channel.WHATSAPP}:
            suffixes = ["_sms_whatsapp"]
        if subject is not None:
            undated = [] if self.recorded.choices[subject].dated else ["_undated"]
            suffixes += ["_profiling" + "".join(undated)] if subject == "object_profiling" else [*undated, "_said"]
        if reason.evidence == RENEWAL:
            suffixes = ["_renewal"]
        sentences = self._texts[table]
        key = next((reason.code + suffix for suffix in suffixes if reason.code + suffix in sentences), reason.code.value)
        return str(sentences.get(key, "")).format(**self._placeholders(subject, channels))

    def _placeholders(self, subject: str | None, channels: Iterable[Channel] = ()) -> dict[str, str]:
        """The values for the placeholders of a sentence."""
        choice = self.recorded.choices.get(subject or "")
        placeholders = {
            "channel": self._channels(channels),
            "offer": self._texts["offer"][self.recorded.offer_type or "other"],
            "adult_years": str(self.policy.adult_years),
            "code": "",
        }
        if choice is not None:
            placeholders["date"] = _format_date(choice.at.astimezone(self.zone), self._texts["form"])
            placeholders["source"] = self._texts["source"].get(choice.source, choice.source)
            placeholders["mode"] = self._texts["mode"].get(choice.value, choice.value)
        return placeholders

    def _channels(self, channels: Iterable[Channel]) -> str:
        return _join([self._texts["channel"][channel] for channel in channels], self._texts["form"]["or"])

    def _entity_name(self) -> str:
        return self.entity.names[self.language] if self.entity else self.recorded.entity


def _join(names: Iterable[str], last: str) -> str:
    *most, end = [*names] or [""]
    return ", ".join(most) + last + end if most else end


def _format_date(at: datetime, form: Mapping[str, Any]) -> str:
    pattern = form["first"] if at.day == 1 else form["date"]
    return str(pattern).format(day=at.day, month=form["months"][at.month - 1], year=at.year)


def _format_moment(at: datetime, where: tzinfo, form: Mapping[str, Any]) -> str:
    local = at.astimezone(where)
    return str(form["moment"]).format(date=_format_date(local, form), clock=f"{local:%H:%M}")
