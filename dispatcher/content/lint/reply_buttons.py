"""The buttons of WhatsApp texts: whether a reply means the same in all languages and modes, and what its title says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from channels.base import Channel
from dispatcher.content.lint.findings import LintFinding
from dispatcher.content.lint.samples import LintSample, with_all_values
from dispatcher.content.lint.word_lists import word_lists
from dispatcher.domain.opt_out_keywords import ReplyMeaning, classify
from dispatcher.domain.recipient import LANGUAGES

_STOP = "STOP"  # the payload of an opt-out


def buttons(samples: Iterable[LintSample]) -> Iterator[LintFinding]:
    """Buttons of a WhatsApp text that one language has and most do not, or lacks: a reply means the same in all languages."""
    by_mode: dict[str, dict[str, LintSample]] = {}
    for sample in with_all_values(samples):
        if sample.request.channel is Channel.WHATSAPP:
            by_mode.setdefault(sample.mode.value, {})[sample.request.language] = sample
    for mode, by_language in by_mode.items():
        keys = {language: _buttons(sample) for language, sample in by_language.items()}
        for sample in by_language.values():
            yield from _stop_buttons(sample)
        common = Counter(keys.values()).most_common(1)[0][0]
        for language, sample in by_language.items():
            if keys[language] != common:
                place = sample.sources.buttons_at(sample.request.language, mode)
                shown = [", ".join(each) or "no button" for each in (keys[language], common)]
                message = f"is other than in most languages: {shown[1]}"
                yield sample.finding("T509", place, f"whatsapp.{mode}.buttons", message, shown[0])

    yield from _modes(by_mode)


def _modes(by_mode: Mapping[str, Mapping[str, LintSample]]) -> Iterator[LintFinding]:
    """A text without the STOP button that the same text has in another mode."""
    for language in LANGUAGES:
        samples = [each[language] for each in by_mode.values() if language in each]
        if any(_STOP in _buttons(each) for each in samples):
            for sample in samples:
                if _STOP not in _buttons(sample):
                    place = sample.sources.buttons_at(language, sample.mode.value)
                    yield sample.finding(
                        "T509", place, f"whatsapp.{sample.mode}.buttons", "lacks the STOP button of the other mode"
                    )


def _stop_buttons(sample: LintSample) -> Iterator[LintFinding]:
    """Replies that say STOP and send something else, or the other way round."""
    language, mode = sample.request.language, sample.mode
    approved = sample.template.languages[language].whatsapp.get(mode)
    says = word_lists().unsubscribe[language]
    for button in approved.buttons if approved else ():
        if not button.payload:
            continue
        field, place = f"whatsapp.{mode}.buttons", sample.sources.buttons_at(language, mode.value)
        if _is_stop(button.title) and not _is_stop(button.payload):
            yield sample.finding("T509", place, field, f"{button.title!r} sends another reply, which is no opt-out", button.payload)
        elif _is_stop(button.payload) and not (_is_stop(button.title) or says.search(button.title)):
            yield sample.finding("T509", place, field, "sends an opt-out, and does not say so", button.title)


def _is_stop(words: str) -> bool:
    return classify(words) is ReplyMeaning.STOP


def _buttons(sample: LintSample) -> tuple[str, ...]:
    """What each button does: the payload of its reply, or "url"."""
    approved = sample.template.languages[sample.request.language].whatsapp.get(sample.mode)
    return tuple(each.payload or "url" for each in approved.buttons) if approved else ()
