"""Why a message was sent or not, in whole sentences that a customer understands (GDPR art. 15, 22; CJEU C-203/22).

Everything told comes from the record of the decision, so that the story stays true when choices change later. The
policy is asked only for names and numbers: give the one whose digest the record bears.
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
from dispatcher.policy.case import zone_of as zone_of
from dispatcher.policy.data import Policy
from dispatcher.policy.explanations import messages
from dispatcher.policy.record import DecisionRecord, from_record

Sentences = tuple[str, ...]  # sentences

NOT_SENT = frozenset({State.REFUSED, State.EXPIRED, State.CANCELLED, State.HELD_OUT})
# These say all there is to say: of such a person nothing else is known, or the lack of a basis only follows from them.
SUFFICIENT_REASONS = frozenset({ReasonCode.ERASED, ReasonCode.UNKNOWN_RECIPIENT})
CODES_THAT_IMPLY_NO_BASIS = frozenset({ReasonCode.CHOICE_NONE, ReasonCode.NO_CHOICE})


@dataclass(frozen=True, slots=True)
class Explanation:
    """The sentences, by what they tell. `text` is all of them in order."""

    language: Language
    what: Sentences  # became of the message
    why: Sentences
    data: Sentences  # was used to write it
    change: Sentences  # would have led to another outcome
    who: Sentences  # sent it, for whom
    contact: Sentences  # with a person

    @property
    def text(self) -> str:
        """All sentences, one paragraph per part."""
        parts = (self.what, self.why, self.data, self.change, self.who, self.contact)
        return "\n".join(" ".join(part) for part in parts if part)


def explain(
    kept: Mapping[str, Any],
    language: Language,
    policy: Policy,
    state: State | None = None,
    reason: str | None = None,
    channel: Channel | None = None,
) -> Explanation:
    """Tell the story of one recorded decision, and of what became of it where `state` and `reason` say so.

    `reason` is a code of ours or of the provider; `channel` narrows a decision with several legs to one message of it.
    """
    teller = _Explainer(from_record(kept), language, policy, channel)
    state = state or _state_of(teller.recorded)
    legs = teller.legs if state not in NOT_SENT else ()
    return Explanation(
        language=language,
        what=teller.what(state, reason),
        why=teller.permissions(legs) if legs else teller.objections(reason),
        data=teller.data() if legs else (),
        change=teller.change(legs, reason),
        who=teller.who(),
        contact=teller.contact(),
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
    """Holds what every sentence needs: the record, the language's words, and the policy for names."""

    def __init__(self, recorded: DecisionRecord, language: Language, policy: Policy, channel: Channel | None) -> None:
        self.recorded, self.language, self.policy = recorded, language, policy
        self.words = messages(language)
        self.entity = policy.entities.get(recorded.entity)
        decision = recorded.decision
        every = decision.legs if isinstance(decision, Send) else ()
        self.legs: tuple[Permission, ...] = tuple(leg for leg in every if leg.channel is channel) or every
        self.zone = zone_of(None, policy.default_zone)
        self.by_event = {choice.event: about for about, choice in recorded.choices.items()}

    def what(self, state: State, reason: str | None) -> Sentences:
        """The state, and the provider's word for it where there is one."""
        decision = self.recorded.decision
        until = _format_moment(decision.until, self.zone, self.words["form"]) if isinstance(decision, Hold) else ""
        if state is State.HELD and not until:  # held by something that came after the decision
            state = State.PENDING
        channels = _join([self.words["channel"][leg.channel] for leg in self.legs], self.words["form"]["and"])
        told = self.words["state"][state].format(channel=channels, until=until)
        if reason is None or reason in set(ReasonCode):
            return (told,)
        return told, self.words["why"]["provider"].format(code=reason)

    def permissions(self, legs: tuple[Permission, ...]) -> Sentences:
        """The choice and the basis of a send, and why other channels were passed over."""
        text, choice = self.words["text"], self.recorded.choices.get(f"offers.{self.recorded.offer_type}")
        told = []
        if choice is not None:
            told.append(text["choice"].format(**self._places(f"offers.{self.recorded.offer_type}")))
            if choice.value == Mode.TAILORED and legs[0].mode is Mode.STANDARD:
                told.append(text["as_standard"])
        entity = self._entity_name()
        told += dict.fromkeys(self.words["basis"][leg.basis].format(entity=entity) for leg in legs)
        for said, channels in self._weighed():
            told += [text["passed_over"].format(channel=self._channels(channels)), self._why(said, channels)]
        return tuple(told)

    def objections(self, reason: str | None) -> Sentences:
        """Everything that speaks against it; after a send decision, the one reason that came later."""
        if isinstance(self.recorded.decision, Send):
            return self._later("why", reason)
        return tuple(dict.fromkeys(self._why(said, channels) for said, channels in self._weighed()))

    def change(self, legs: tuple[Permission, ...], reason: str | None) -> Sentences:
        """What would have led to another outcome: only where one thing alone would have."""
        if legs:
            if self.recorded.offer_type is None:
                return ()
            return (self.words["change"]["sent"].format(**self._places(None, [leg.channel for leg in legs])),)
        if isinstance(self.recorded.decision, Send):
            return self._later("change", reason)
        weighed = self._weighed()
        against: dict[Channel, int] = {}
        for _, channels in weighed:
            for channel in channels:
                against[channel] = against.get(channel, 0) + 1
        if against and min(against.values()) > 1:
            return (self.words["text"]["all"],)
        single = [(said, [name for name in channels if against[name] == 1]) for said, channels in weighed]
        told_all = (self._phrase("change", said, channels) for said, channels in single if channels)
        return tuple(dict.fromkeys(told for told in told_all if told))

    def data(self) -> Sentences:
        """The data categories behind the text."""
        if not self.recorded.categories:
            return ()
        names = sorted(self.words["category"].get(name, name) for name in self.recorded.categories)
        sentence = self.words["text"]["used" if self.recorded.used else "allowed"]
        return (sentence.format(categories=_join(names, self.words["form"]["and"])),)

    def who(self) -> Sentences:
        """Sender, controllers and processor."""
        text = self.words["text"]
        told = [text["sender"].format(entity=self._entity_name())]
        if self.entity is not None:
            controllers = _join(self.entity.controllers, self.words["form"]["and"])
            told += [text["controllers"].format(controllers=controllers)]
            told += [text["processor"].format(processor=self.entity.processor)]
        return tuple(told)

    def contact(self) -> Sentences:
        """How to reach a person."""
        return (self.words["text"]["contact"].format(contact=self.entity.contact),) if self.entity else ()

    def _weighed(self) -> list[tuple[Reason, list[Channel]]]:
        """The objections worth telling, strongest first, each once with its channels."""
        reasons = self.recorded.decision.reasons
        codes = {said.code for said in reasons}
        merged: dict[tuple[ReasonCode, str], tuple[Reason, list[Channel]]] = {}
        for said in reasons:
            if said.code is ReasonCode.NO_BASIS and codes & CODES_THAT_IMPLY_NO_BASIS:
                continue
            # One lacking basis per channel is one sentence, however many places of the policy would have to allow it.
            evidence = "" if said.code is ReasonCode.NO_BASIS else said.evidence
            merged.setdefault((said.code, evidence), (said, []))[1].append(said.channel)
        rank = list(ReasonCode).index
        weighed = sorted(merged.values(), key=lambda entry: rank(entry[0].code))
        return weighed[:1] if weighed and weighed[0][0].code in SUFFICIENT_REASONS else weighed

    def _later(self, table: str, reason: str | None) -> Sentences:
        """The sentence for a reason that came up after the decision to send, where it is one of ours."""
        sentence = self.words[table].get(reason) if reason in set(ReasonCode) else None
        return (sentence.format(**self._places(None, [leg.channel for leg in self.legs])),) if sentence else ()

    def _why(self, said: Reason, channels: list[Channel]) -> str:
        return self._phrase("why", said, channels)

    def _phrase(self, table: str, said: Reason, channels: list[Channel]) -> str:
        """The sentence for a reason: the one that fits its evidence best, or "" where the table has none."""
        about = self.by_event.get(said.evidence)
        suffixes = ["_push"] if channels == [Channel.PUSH] else []
        if about is not None:
            suffixes += ["_profiling"] if about == "object_profiling" else ["_said"]
        sentences = self.words[table]
        key = next((said.code + suffix for suffix in suffixes if said.code + suffix in sentences), said.code.value)
        return str(sentences.get(key, "")).format(**self._places(about, channels))

    def _places(self, about: str | None, channels: Iterable[Channel] = ()) -> dict[str, str]:
        """What may be filled into a sentence."""
        choice = self.recorded.choices.get(about or "")
        places = {
            "channel": self._channels(channels),
            "offer": self.words["offer"][self.recorded.offer_type or "other"],
            "adult_years": str(self.policy.adult_years),
            "code": "",
        }
        if choice is not None:
            places["date"] = _format_date(choice.at.astimezone(self.zone), self.words["form"])
            places["source"] = self.words["source"].get(choice.source, choice.source)
            places["mode"] = self.words["mode"].get(choice.value, choice.value)
        return places

    def _channels(self, channels: Iterable[Channel]) -> str:
        return _join([self.words["channel"][channel] for channel in channels], self.words["form"]["or"])

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
