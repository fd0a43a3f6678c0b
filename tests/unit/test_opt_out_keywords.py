"""Which replies are a STOP: word families in four languages, and texts that only look like one."""

from __future__ import annotations

import pytest

from dispatcher.domain.opt_out_keywords import ReplyMeaning, classify, may_be_opt_out

OWN = ("KBC Bank", "CBC Banque", "KBC Assurances")
STOPS = """
    STOP|stop|Stop!|S.T.O.P|s t o p|STOP.|stop svp|please stop|STOP thanks|Stop SMS|STOP PUB|stop sms pub|Stop KBC|stop kbc bank svp
    stop met sms sturen|Stop met berichten sturen aub|stoppen|afmelden|uitschrijven graag|geen reclame meer|geen sms meer aub
    ARRET|Arrêt|ARRETE|arrêter|ARRETT|arrêtez les sms|Arrêtez de m'envoyer des SMS|DESABONNER|désabonnement|désinscription svp
    plus de pub|pas de pub svp|STOP au 36180|STOPPEN|STOPP|ABBESTELLEN|abmelden bitte|keine Werbung mehr|Stopp WhatsApp|keine sms
    REMOVE|unsubscribe|opt-out|opt out|STOPALL|stop all|cancel|end|quit|no more sms|stop sending me messages
    stop s.v.p.|arrêt s'il vous plaît|stop, dank u|stop dank je wel|Bitte abmelden, danke|revoke|stop stop stop|«Stop»|stop 🛑
    hallo, stop|  stop
    STOPSMS|STOPPUB|STOP36180|stopaub|stopsvp|stop\u200bsms|smsstop|S-T-O-P aub|s t o p sms|s.t.o.p. s.v.p.|🆂🆃🅾🅿|🇸🇹🇴🇵|🅢🅣🅞🅟|ꜱᴛᴏᴘ
    СТОП|ЅТОР|STΟP|st0p|stop 🇧🇪|stop alles|stop tout|stop ermee|stop nu|stop now|sofort stoppen|stop it|stop texting me|STOP SPAM
    afmelden voor sms|schrijf mij uit|Meld mij af aub|ik wil geen sms meer|je ne veux plus de sms|stopp bitte keine SMS mehr
    opt out please|remove me|unsubcribe|annulez|STOP\\nVerzonden vanaf mijn iPhone|Stop. Sent from my Samsung Galaxy
    stop geen sms meer|pubstop|désabonnez-moi svp|stoppen a.u.b.|a.u.b. geen reclame meer
    Arrêt\\nEnvoyé de mon iPhone|STOP\\nVon meinem iPhone gesendet|ich möchte keine Werbung mehr|geen sms sturen aub|no spam
    𝐒𝐓𝐎𝐏|ＳＴＯＰ|𝓼𝓽𝓸𝓹|ⓢⓣⓞⓟ|st\u00adop|\u200bSTOP\ufeff|Ŝtop
"""
NOT_STOPS = """
    stopcontact|ik stop bij de bakker|don't stop|non stop|stop niet|geen probleem|pas de problème|no thanks|please|merci|
    unstop|start|stopwatch|nonstop|Wanneer stopt de actie?|arrêt de bus|ne pas arrêter|nicht stoppen|no stop|stop and start
    stop er niet mee|niet stoppen|un stop|stop start|the end|cancel all|svp|ok|12345|🛑|infos
    plus d'offres svp|plus de 500 messages|500 plus sms|sms plus|no message to send|no message from you|stop d|stop de|stopte
    geen bericht ontvangen|arrête pas les sms|pas stop sms|ik wil niet stoppen|ik stop|remove me from the joint account|stop bij jou
    verzonden vanaf mijn iPhone|stopplaats|je veux plus d'offres|geen bericht van jullie|annulez ma commande|plus de messages svp
    end of month?|cancel my loan|remove my car from the policy|Bahnhof|help stop
"""


def texts(lines: str) -> list[str]:
    return [text.strip().replace("\\n", "\n") for line in lines.strip().split("\n") for text in line.split("|") if text.strip()]


@pytest.mark.parametrize("text", texts(STOPS))
def test_word_families_of_stop_are_heard(text: str) -> None:
    assert classify(text, OWN) is ReplyMeaning.STOP


@pytest.mark.parametrize("text", texts(NOT_STOPS))
def test_other_texts_are_no_stop(text: str) -> None:
    assert classify(text, OWN) is not ReplyMeaning.STOP


@pytest.mark.parametrize("text", ["HELP", "help!", "Info", "aide svp", "HILFE", "hulp aub"])
def test_help_is_heard_in_four_languages(text: str) -> None:
    assert classify(text) is ReplyMeaning.HELP


@pytest.mark.parametrize("text", ["START", "unstop"])
def test_start_is_heard(text: str) -> None:
    assert classify(text) is ReplyMeaning.START


def test_another_name_than_our_own_is_unclear() -> None:
    assert classify("stop Ibanity", OWN) is ReplyMeaning.UNCLEAR


@pytest.mark.parametrize("text", ["laat me met rust", "f*** off", "мне не надо", "👎", "", "stop niet", "ok stop daarmee nu"])
def test_what_may_be_an_opt_out_holds_advertising(text: str) -> None:
    assert may_be_opt_out(text)


@pytest.mark.parametrize("text", ["Merci!", "dank u wel", "Thanks", "bonjour"])
def test_politeness_alone_is_no_opt_out(text: str) -> None:
    assert not may_be_opt_out(text)
