"""After a restore to an earlier moment nothing is sent until a person releases it, and then nothing twice."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from channels.base import Channel, Misconfigured, Provider
from channels.providers.outbox import Outbox
from dispatcher.campaigns import schedule_runs, scheduler, schedules, submission
from dispatcher.consent import erasure, opt_out_replay
from dispatcher.delivery import reconciliation
from dispatcher.delivery.messages import UnresolvedFilter
from dispatcher.delivery.pipeline import run_chunk
from dispatcher.embedded.postgres import BIN
from dispatcher.events import event_files, publication
from dispatcher.intake.campaign import parse_campaign
from dispatcher.intake.errors import BadInput
from dispatcher.intake.trigger import parse_trigger
from dispatcher.ledger import secret_keys
from dispatcher.ledger.connection import lend
from dispatcher.ledger.consent import suppressions
from dispatcher.maintenance import restores
from dispatcher.maintenance.restores import RestoreStatus, SendDecision
from dispatcher.runtime.event_settings import EventFileSettings
from dispatcher.runtime.ledger_watch import CLAIM_MISSING, NUMBER_REUSED, OTHER_PLACE, UNKNOWN_GENERATION, LedgerWatch
from dispatcher.runtime.services import Services
from tests.integration.test_events import say
from tests.integration.test_schedules import upload
from tests.support.feed import all_events
from tests.support.services import Clock, add_people, balance, make_services, person, states, work

OFFER = {"project": "solar panels", "amount": 9000, "offer_url": "https://www.kbc-bank.example/loan"}
PEOPLE = [f"c-{number}" for number in range(6)]
SEND, UNRESOLVED = SendDecision.SEND, SendDecision.UNRESOLVED


@dataclass
class Installation:
    """A ledger, the folder with the marks, and providers, which remember everything whatever becomes of the ledger."""

    database: str
    folder: Path
    clock: Clock = field(default_factory=Clock)
    providers: Mapping[Channel, Provider] = field(default_factory=lambda: {channel: Outbox(channel) for channel in Channel})

    @contextmanager
    def processes(self, folder: Path | None = None) -> Iterator[Services]:
        """Services as a process has them that starts now, with the check of each new connection; of another machine in `folder`."""
        with make_services(self.database, self.clock) as made:
            rules = replace(made.policy, quiet_hours={})
            watch = LedgerWatch(folder or self.folder)
            services = replace(made, policy=rules, providers=self.providers, ledger_watch=watch)
            with lend(services.pool) as connection:
                secret_keys.check_keys(connection, services.secret)
                watch.check(connection, services.clock())
            yield services
            services.pool.close()

    def sent(self, channel: Channel = Channel.EMAIL) -> list[str]:
        """The addresses that got a message, each as often as it did."""
        provider = self.providers[channel]
        assert isinstance(provider, Outbox)
        return sorted(message.address for message in provider.sent)

    def _administer(self, *statements: str) -> None:
        name = urlsplit(self.database).path[1:]
        with psycopg.connect(urlsplit(self.database)._replace(path="/dispatcher").geturl(), autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.format(name=name).encode())

    @contextmanager
    def backup(self) -> Iterator[None]:
        """A copy of the database, made now and restored at the end of the block. No process may have a connection at either end."""
        self._administer("CREATE DATABASE {name}_backup TEMPLATE {name} STRATEGY file_copy")
        yield
        self.restore()
        self._administer("DROP DATABASE {name}_backup WITH (FORCE)")

    def restore(self) -> None:
        """Replace the database by its copy."""
        again = "CREATE DATABASE {name} TEMPLATE {name}_backup STRATEGY file_copy"
        self._administer("DROP DATABASE {name} WITH (FORCE)", again)


@pytest.fixture
def installation(database: str, tmp_path: Path) -> Installation:
    """Six people who may get a campaign."""
    made = Installation(database, tmp_path)
    with made.processes() as services:
        add_people(services, *(person(each, number) for number, each in enumerate(PEOPLE)))
        submit(services, "before", ["c-0"])
        work(services)
    assert made.sent() == mails("c-0")
    return made


def mails(*people: str) -> list[str]:
    return sorted(f"{each}@example.org" for each in people)


def submit(services: Services, campaign_id: str, people: list[str], **options: object) -> None:
    rows = [{"recipient": each, "data": OFFER} for each in people]
    form = {"id": campaign_id, "template": "loan_offer", "channels": ["email"], "audience": rows, **options}
    submission.submit(services, parse_campaign(form, submission.validation_context(services)))


def the_restore(services: Services) -> RestoreStatus:
    restore = restores.status(services)
    assert restore is not None
    return restore


def test_what_was_sent_in_the_lost_time_is_not_sent_twice(installation: Installation) -> None:
    with installation.processes() as services:
        submit(services, "spring", PEOPLE)
        (due,) = scheduler.due_chunks(services)
    with installation.backup(), installation.processes() as services:
        run_chunk(services, due.period, due.number)
        work(services)
        assert states(services, "spring") == {"accepted": 6}
    sent = installation.sent()
    with installation.processes() as services:
        restore = the_restore(services)
        assert (restore.is_held, restore.generation.cause) == (True, CLAIM_MISSING)
        work(services)
        run_chunk(services, due.period, due.number)  # the broker still has it
        assert installation.sent() == sent
        assert [(each.work.campaign_id, each.work.open, each.decision) for each in restore.works] == [("spring", 6, UNRESOLVED)]
        assert restores.release(services, {}, UNRESOLVED, "desk 7") is not None
        assert restores.release(services, {}, UNRESOLVED, "desk 7") is None
        run_chunk(services, due.period, due.number)
        assert installation.sent() == sent
        assert states(services, "spring") == {"unresolved": 6}
        assert balance(services, "spring").reasons == {"ledger_restored": 6}
        assert reconciliation.resolve_all_by_hand(services, UnresolvedFilter(campaign_id="spring"), True, "desk 7") == 6
        assert states(services, "spring") == {"accepted": 6}
        submit(services, "summer", PEOPLE)  # what comes later is sent as always
        work(services)
        assert installation.sent() == sorted(sent + mails(*PEOPLE))


def test_a_campaign_that_a_person_knows_to_be_unsent_is_sent(installation: Installation) -> None:
    with installation.processes() as services:
        submit(services, "spring", ["c-1"])
        submit(services, "paused", ["c-2"])
        submit(services, "tomorrow", ["c-3"], send_at="2026-11-24T12:00:00+01:00")
    with installation.backup(), installation.processes() as services:
        submit(services, "lost", ["c-4"])
        work(services)
    with installation.processes() as services:
        assert [(each.work.campaign_id, each.decision) for each in the_restore(services).works] == [
            ("spring", UNRESOLVED),
            ("paused", UNRESOLVED),
            ("tomorrow", SEND),
        ]
        with pytest.raises(BadInput, match="there is no open campaign lost"):
            restores.release(services, {"lost": SEND}, UNRESOLVED, "desk 7")
        assert the_restore(services).is_held
        assert restores.release(services, {"paused": SEND}, UNRESOLVED, "desk 7") is not None
        installation.clock.pass_(86_400)
        work(services)
        assert states(services, "spring") == {"unresolved": 1}
        assert states(services, "paused") == states(services, "tomorrow") == {"accepted": 1}


def test_the_next_channel_is_not_tried_twice_either(installation: Installation) -> None:
    """The mail was accepted before the backup; the text message followed in the time that was lost."""
    with installation.processes() as services:
        submit(services, "spring", ["c-1"], channels=["email", "sms"], fallback_after_seconds=600)
        work(services)
    with installation.backup(), installation.processes() as services:
        installation.clock.pass_(700)
        work(services)
        assert len(installation.sent(Channel.SMS)) == 1
    with installation.processes() as services:
        restores.release(services, {}, UNRESOLVED, "desk 7")
        work(services)
        installation.clock.pass_(700)
        work(services)
        assert len(installation.sent(Channel.SMS)) == 1


def test_what_is_held_after_the_release_stays_marked(installation: Installation) -> None:
    """It was sent before the quiet hours, and is decided again in them."""
    with installation.processes() as services:
        submit(services, "spring", ["c-1"], channels=["sms"])
    with installation.backup(), installation.processes() as services:
        work(services)
    sent = installation.sent(Channel.SMS)
    with installation.processes() as services, make_services(installation.database) as plain:
        restores.release(services, {}, UNRESOLVED, "desk 7")
        installation.clock.pass_(11 * 3_600)
        work(replace(services, policy=plain.policy))  # with quiet hours
        assert states(services, "spring") == {"held": 1}
        installation.clock.pass_(12 * 3_600)
        work(services)
        assert states(services, "spring") == {"unresolved": 1}
        assert installation.sent(Channel.SMS) == sent


def test_a_message_that_is_decided_again_is_no_sign_of_a_restore(installation: Installation) -> None:
    """Its last claim is the one that is written down."""
    provider = installation.providers[Channel.EMAIL]
    assert isinstance(provider, Outbox)
    provider.answers[""] = Misconfigured("401")
    with installation.processes() as services:
        submit(services, "spring", ["c-1"])
        work(services)
        installation.clock.pass_(3_600)
        work(services)
        assert states(services, "spring") == {"waiting": 1}  # decided again: the channel is stopped
    with installation.processes() as services:
        assert restores.status(services) is None


def test_a_run_of_the_lost_time_is_skipped(installation: Installation) -> None:
    """A recurring campaign may have run before the restore, though the ledger knows nothing of it."""
    with installation.processes() as services:
        uploads = replace(services, audiences=installation.folder)
        definition = {"id": "weekly", "cron": "5 12 * * *", "zone": "Europe/Brussels"}
        campaign = {"template": "loan_offer", "channels": ["email"], "audience": {"upload": "weekly-*"}}
        schedules.add(uploads, schedules.parse(uploads, {**definition, "campaign": campaign}), "anna")
        upload(uploads, "weekly-1", "c-1")
    with installation.backup(), installation.processes() as services:
        installation.clock.pass_(301)
        schedule_runs.start_due(replace(services, audiences=installation.folder))
        work(services)
        assert installation.sent() == mails("c-0", "c-1")
    with installation.processes() as services:
        uploads = replace(services, audiences=installation.folder)
        assert schedule_runs.start_due(uploads) == []
        restores.release(services, {}, UNRESOLVED, "desk 7")
        schedule_runs.start_due(uploads)
        work(services)
        assert [(run.state, run.reason) for run in schedules.status(services, "weekly").runs] == [("skipped", "ledger_restored")]
        assert installation.sent() == mails("c-0", "c-1")


def test_what_was_claimed_at_the_moment_of_the_backup_is_unresolved(installation: Installation) -> None:
    with installation.processes() as services:
        submit(services, "spring", ["c-1"])
        work(services)
        with lend(services.pool) as connection:
            connection.execute(
                "UPDATE messages m SET state = 'claimed', claim_no = 900 FROM campaigns c"
                " WHERE m.campaign_no = c.no AND c.id = 'spring'"
            )
            connection.execute("UPDATE chunks SET done_at = NULL")
            connection.execute("UPDATE campaigns SET state = 'running', finished_at = NULL WHERE id = 'spring'")
    with installation.backup(), installation.processes() as services:
        submit(services, "lost", ["c-4"])
        work(services)
    with installation.processes() as services:
        assert states(services, "spring") == {"unresolved": 1}


def test_a_trigger_of_the_lost_time_is_not_sent_twice(installation: Installation) -> None:
    with installation.processes() as services:
        form = {"key": "t-1", "recipient": "c-1", "template": "loan_offer", "channels": ["email"], "data": OFFER}
        place = submission.take_trigger(services, parse_trigger(form, submission.validation_context(services)))
    with installation.backup(), installation.processes() as services:
        run_chunk(services, place.period, place.chunk)
    sent = installation.sent()
    assert sent == mails("c-0", "c-1")
    with installation.processes() as services:
        run_chunk(services, place.period, place.chunk)  # the broker still has it
        assert installation.sent() == sent
        restores.release(services, {}, UNRESOLVED, "desk 7")
        work(services)
        assert installation.sent() == sent


def test_a_restore_under_a_running_worker_is_noticed(installation: Installation) -> None:
    """No connection was cut, so only the number of the claim tells it. Nothing of that claim is sent."""
    with installation.processes() as services:
        submit(services, "spring", ["c-1"])
        with lend(services.pool) as connection:
            connection.execute("SELECT setval('claim_number', 1, false)")
        sent = installation.sent()
        work(services)
        assert the_restore(services).generation.cause == NUMBER_REUSED
        assert installation.sent() == sent
        assert states(services, "spring") == {"unresolved": 1}


def test_a_copy_on_another_machine_sends_nothing(installation: Installation, tmp_path: Path) -> None:
    """Without any mark, the place of the rows tells it. Where the marks came along, nothing was lost."""
    with installation.processes():
        pass  # it remembers the place
    with installation.backup():
        pass
    with installation.processes() as services:
        assert restores.status(services) is None
    installation._administer("CREATE DATABASE {name}_backup TEMPLATE {name} STRATEGY file_copy")
    installation.restore()
    with installation.processes(tmp_path / "nothing") as services:
        assert the_restore(services).generation.cause == OTHER_PLACE
    installation._administer("DROP DATABASE {name}_backup WITH (FORCE)")


def test_a_second_restore_of_the_same_backup_is_noticed(installation: Installation) -> None:
    with installation.processes() as services:
        submit(services, "spring", ["c-1"])
    with installation.backup():
        with installation.processes() as services:
            work(services)
        installation.restore()
        with installation.processes() as services:
            restores.release(services, {}, UNRESOLVED, "desk 7")
            submit(services, "summer", ["c-2"])
            work(services)
    with installation.processes() as services:
        assert the_restore(services).generation.cause == UNKNOWN_GENERATION


def test_message_ids_of_the_lost_time_are_not_used_again(installation: Installation) -> None:
    """Providers still report about them."""
    with installation.backup(), installation.processes() as services:
        submit(services, "lost", ["c-1"])
        (lost,) = scheduler.due_chunks(services)
        work(services)
        run_chunk(services, lost.period, lost.number)
    with installation.processes() as services:
        restores.release(services, {}, UNRESOLVED, "desk 7")
        submit(services, "other", ["c-2"])
        (due,) = scheduler.due_chunks(services)
        assert due.number > lost.number


@pytest.mark.parametrize("form", ["feed", "files"])
def test_opt_outs_of_the_lost_time_are_read_back(installation: Installation, tmp_path: Path, form: str) -> None:
    """From events that left the program. An opt-out from before, which the person took back, is not repeated."""
    exported = tmp_path / "exported"
    with installation.processes() as services:
        say(services, "c-1", "channel:email", "off")
        say(services, "c-1", "channel:email", "on")
    with installation.backup(), installation.processes() as services:
        submit(services, "lost", ["c-0"])
        work(services)
        say(services, "c-2", "offer:own", "none")
        say(services, "c-3", "objection:marketing", "on")
        with lend(services.pool) as connection:
            key = connection.execute("SELECT email_key FROM recipients WHERE id = 'c-4'").fetchone()
            assert key is not None
            suppressions.suppress(connection, Channel.EMAIL, key[0], "complained", "sendgrid", services.clock())
        erasure.erase(services, "c-5", "desk 7")
        publication.publish(services)
        if form == "feed":
            exported.mkdir()
            (exported / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in all_events(services)))
        else:
            installation.clock.pass_(2 * 86_400)
            event_files.write(replace(services, event_files=EventFileSettings(str(exported), "day", ("csv",))))
    with installation.processes() as services:
        counts = opt_out_replay.replay(services, exported, "desk 7", lambda _: None)
        again = opt_out_replay.replay(services, exported, "desk 7", lambda _: None)
        in_feed = form == "feed"
        assert (counts.suppressions, counts.erased) == ((1, ["c-5"]) if in_feed else (0, []))
        assert (again.opt_outs, again.suppressions, again.erased) == (0, 0, counts.erased)
        restores.release(services, {}, UNRESOLVED, "desk 7")
        before = installation.sent()
        submit(services, "spring", PEOPLE[1:])
        work(services)
        assert Counter(installation.sent()) - Counter(before) == Counter(mails("c-1") if in_feed else mails("c-1", "c-4"))


def test_a_restore_by_hand_is_noticed(installation: Installation, tmp_path: Path) -> None:
    """By PostgreSQL's own programs, into a new database."""
    with installation.processes() as services:
        submit(services, "spring", PEOPLE)
    file = tmp_path / "ledger.dump"
    subprocess.run([BIN / "pg_dump", "-Fc", "-f", file, installation.database], check=True)
    with installation.processes() as services:
        work(services)
    sent = installation.sent()
    installation._administer("DROP DATABASE {name} WITH (FORCE)", "CREATE DATABASE {name}")
    subprocess.run([BIN / "pg_restore", "-d", installation.database, file], check=True)
    with installation.processes() as services:
        assert the_restore(services).generation.cause == CLAIM_MISSING
        work(services)
        assert installation.sent() == sent
