"""Settings: all faults are reported at once, before anything starts, and no secret is shown."""

from __future__ import annotations

import base64
import json
import stat
from collections import Counter
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import TypeAlias

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from channels.base import Channel, Outbound, Receipt, Sms
from channels.sandbox import running
from channels.send_window import window_of
from dispatcher.runtime import bootstrap
from dispatcher.runtime.settings import InvalidSettings, SecondProvider, Settings, load

Environ: TypeAlias = dict[str, str]
SID, TOKEN, SERVICE = "AC" + "0" * 32, "t0ken-of-twilio", "MG" + "a" * 32
TELNYX = {"TELNYX_API_KEY": "KEY0_telnyx", "TELNYX_SMS_SENDER": "+32460000001", "TELNYX_PUBLIC_KEY": "A" * 43 + "="}
KEY = base64.b64encode(
    ec.generate_private_key(ec.SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
).decode()


@pytest.fixture
def valid(tmp_path: Path) -> Environ:
    """A valid environment, in which everything is set and every provider is real."""
    account = tmp_path / "account.json"
    account.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "p",
                "client_email": "a@b.example",
                "private_key": "pr1vate",
                "token_uri": "https://oauth2.googleapis.com/token",
            }
        )
    )
    (tmp_path / "templates").mkdir()
    (tmp_path / "policy.toml").touch()
    (tmp_path / "api-keys.json").touch()
    return {
        "DISPATCHER_HOME": str(tmp_path / "home"),
        "DISPATCHER_DATABASE_URL": "postgresql://u:pass-db@db.example/d",
        "DISPATCHER_BROKER_URL": "rediss://:pass-broker@broker.example/0",
        "DISPATCHER_TEMPLATES": str(tmp_path / "templates"),
        "DISPATCHER_POLICY": str(tmp_path / "policy.toml"),
        "DISPATCHER_PUBLIC_URL": "https://messages.bank.example/",
        "DISPATCHER_SECRET_KEY": "s3cret-" * 6,
        "DISPATCHER_API_KEYS": str(tmp_path / "api-keys.json"),
        "SENDGRID_API_KEY": "SG.k3y",
        "SENDGRID_WEBHOOK_PUBLIC_KEY": KEY,
        "TWILIO_ACCOUNT_SID": SID,
        "TWILIO_AUTH_TOKEN": TOKEN,
        "TWILIO_SMS_SENDER": "Bank 2",
        "TWILIO_WHATSAPP_SENDER": "whatsapp:+32470000000",
        "GOOGLE_APPLICATION_CREDENTIALS": str(account),
        "SMTP_URL": "smtps://u:pass-smtp@mail.example:465",
    }


def faults(environ: Environ) -> str:
    with pytest.raises(InvalidSettings) as caught:
        Settings.from_environment(environ)
    return str(caught.value)


def test_an_empty_environment_means_embedded_engines_and_sandbox(tmp_path: Path) -> None:
    settings = Settings.from_environment({"DISPATCHER_TEMPLATES": str(tmp_path)})
    assert settings.home == Path.cwd() / "var"
    assert (settings.database_url, settings.broker_url, settings.policy, settings.api_keys) == (None, None, None, None)
    assert settings.public_url == "http://127.0.0.1:8000"
    assert settings.providers == dict.fromkeys(Channel, "sandbox")
    assert settings.warnings == ()


def test_compiled_paths_are_used_unless_switched_off(valid: Environ) -> None:
    assert Settings.from_environment(valid).specialise
    assert Settings.from_environment(valid | {"DISPATCHER_SPECIALISE": "on"}).specialise
    assert not Settings.from_environment(valid | {"DISPATCHER_SPECIALISE": "off"}).specialise
    assert "DISPATCHER_SPECIALISE is 'no': it must be one of on, off" in faults(valid | {"DISPATCHER_SPECIALISE": "no"})


def test_records_are_compact_unless_switched_off(valid: Environ) -> None:
    assert Settings.from_environment(valid).compact_records
    assert not Settings.from_environment(valid | {"DISPATCHER_COMPACT_RECORDS": "off"}).compact_records
    assert "DISPATCHER_COMPACT_RECORDS is 'no': it must be one of on, off" in faults(valid | {"DISPATCHER_COMPACT_RECORDS": "no"})


def test_a_url_may_name_several_servers(valid: Environ) -> None:
    database = "postgresql://u:pass@a.example:5432,b.example:5433/d?target_session_attrs=read-write"
    broker = "amqp://u:pass@a.example//;amqps://u:pass@b.example:5671//"
    urls = {"DISPATCHER_DATABASE_URL": database, "DISPATCHER_BROKER_URL": broker, "DISPATCHER_STORE_URL": "redis://s.example"}
    settings = Settings.from_environment(valid | urls)
    assert (settings.database_url, settings.store_url) == (database, "redis://s.example")
    assert settings.broker_url == f"{broker}?ssl_cert_reqs=required"


def test_sealed_jobs_are_required_only_where_the_setting_says_so(valid: Environ) -> None:
    assert not Settings.from_environment(valid).seal_required
    assert Settings.from_environment(valid | {"DISPATCHER_SEALED_JOBS": "required"}).seal_required
    assert "DISPATCHER_SEALED_JOBS is 'yes': it must be one of optional, required" in faults(
        valid | {"DISPATCHER_SEALED_JOBS": "yes"}
    )


def test_a_named_provider_overrides_the_choice_by_credentials(valid: Environ) -> None:
    settings = Settings.from_environment(valid)
    assert settings.providers == {Channel.EMAIL: "sendgrid", Channel.SMS: "twilio", Channel.WHATSAPP: "twilio", Channel.PUSH: "fcm"}
    assert settings.accounts["twilio"].whatsapp_sender == "+32470000000"
    assert settings.public_url == "https://messages.bank.example"
    assert settings.warnings == ()
    with_names = Settings.from_environment(valid | {"DISPATCHER_PROVIDER_EMAIL": "smtp", "DISPATCHER_PROVIDER_PUSH": "outbox"})
    assert with_names.providers[Channel.EMAIL] == "smtp"
    ends = "messages by email and sms and whatsapp reach people, those by push end in the sandbox or outbox"
    assert ends in with_names.warnings[0]


ONE_FAULT: list[tuple[Environ, str]] = [
    ({"SENDGRID_API_KEY": "", "DISPATCHER_PROVIDER_EMAIL": "sendgrid"}, "SENDGRID_API_KEY is missing: email goes through sendgrid"),
    ({"SMTP_URL": "", "DISPATCHER_PROVIDER_EMAIL": "smtp"}, "SMTP_URL is missing: email goes through smtp"),
    ({"TWILIO_SMS_SENDER": ""}, "TWILIO_SMS_SENDER is missing: sms goes through twilio"),
    ({"TWILIO_WHATSAPP_SENDER": ""}, "TWILIO_WHATSAPP_SENDER is missing: whatsapp goes through twilio"),
    ({"TWILIO_SMS_SENDER": "0470000000"}, "TWILIO_SMS_SENDER is '0470000000': it must be a number like +32"),
    ({"TWILIO_SMS_SENDER": "TwelveLetter"}, "TWILIO_SMS_SENDER is 'TwelveLetter': it must be"),
    ({"TWILIO_SMS_SENDER": "12345"}, "TWILIO_SMS_SENDER is '12345': it must be"),
    ({"TWILIO_SMS_SENDER": SERVICE[:-1]}, "TWILIO_SMS_SENDER is 'MGaaaa"),
    ({"TWILIO_WHATSAPP_SENDER": "Bank"}, "TWILIO_WHATSAPP_SENDER is 'Bank': it must be a number"),
    ({"TWILIO_ACCOUNT_SID": "AC12"}, "TWILIO_ACCOUNT_SID is 'AC12': it must be AC and 32 hex digits"),
    ({"SENDGRID_WEBHOOK_PUBLIC_KEY": KEY[:-2]}, "SENDGRID_WEBHOOK_PUBLIC_KEY is 'MFkw"),
    (
        {"SENDGRID_BASE_URL": "http://api.example"},
        "SENDGRID_BASE_URL is 'http://api.example': http would go over the network in the clear",
    ),
    ({"FCM_BASE_URL": "https://fcm.example:99999"}, "FCM_BASE_URL is 'https://fcm.example:99999': it must be an address like"),
    (
        {"TWILIO_BASE_URL": "api.twilio.com"},
        "TWILIO_BASE_URL is 'api.twilio.com': it must be an address like https://api.twilio.com",
    ),
    ({"DISPATCHER_PUBLIC_URL": "https://u:hunter2@x.example"}, "DISPATCHER_PUBLIC_URL is '…@x.example': it must not hold a user"),
    (
        {"DISPATCHER_DATABASE_URL": "mysql://u:hunter2@x"},
        "DISPATCHER_DATABASE_URL (not shown, it may hold a password) can't be read",
    ),
    ({"DISPATCHER_BROKER_URL": "redis://"}, "DISPATCHER_BROKER_URL (not shown"),
    ({"DISPATCHER_DATABASE_URL": "postgresql://a:5432,b:no/d"}, "DISPATCHER_DATABASE_URL (not shown"),
    ({"DISPATCHER_BROKER_URL": "amqp://r.example"}, "DISPATCHER_STORE_URL is not set: DISPATCHER_BROKER_URL names a RabbitMQ"),
    ({"DISPATCHER_STORE_URL": "amqp://r.example"}, "DISPATCHER_STORE_URL (not shown"),
    (
        {"DISPATCHER_BROKER_URL": "amqps://r.example?ssl_cert_reqs=no", "DISPATCHER_STORE_URL": "redis://r.example"},
        "DISPATCHER_BROKER_URL (not shown, it may hold a password): ssl_cert_reqs must be one of",
    ),
    ({"DISPATCHER_PROVIDER_SMS": "twillio"}, "DISPATCHER_PROVIDER_SMS is 'twillio': it must be one of twilio, telnyx, outbox"),
    ({"DISPATCHER_TEMPLATES": "/nowhere"}, "DISPATCHER_TEMPLATES is '/nowhere': there is no such folder"),
    ({"DISPATCHER_POLICY": "/nowhere"}, "DISPATCHER_POLICY is '/nowhere': that file can't be read (No such file"),
    ({"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere"}, "GOOGLE_APPLICATION_CREDENTIALS is '/nowhere': that file can't be read"),
    ({"DISPATCHER_SECRET_KEY": "hunter2"}, "DISPATCHER_SECRET_KEY has 7 characters: it needs 32 or more"),
    ({"DISPATCHER_SECRET_KEY": ""}, "DISPATCHER_SECRET_KEY is missing: with a database of your own"),
    ({"SENDGRID_API_KEY": "SG.hunter2 hunter2"}, "SENDGRID_API_KEY (not shown) holds white space"),
]


@pytest.mark.parametrize(("change", "sentence"), ONE_FAULT, ids=[sentence[:60] for _, sentence in ONE_FAULT])
def test_a_fault_is_named_with_what_would_be_right(valid: Environ, change: Environ, sentence: str) -> None:
    faults_text = faults(valid | change)
    assert faults_text.startswith(sentence)
    assert "\n" not in faults_text, "one fault gives one sentence"
    assert "hunter2" not in faults_text


def test_all_faults_are_named_at_once(valid: Environ) -> None:
    change = {"TWILIO_AUTH_TOKEN": "", "SENDGRID_BASE_URL": "x", "DISPATCHER_HOME": " ", "DISPATCHER_PROVIDER_PUSH": "apns"}
    faults_text = faults(valid | change).splitlines()
    assert [sentence.split()[0] for sentence in faults_text] == [
        "TWILIO_AUTH_TOKEN",  # for sms
        "TWILIO_AUTH_TOKEN",  # and for whatsapp
        "DISPATCHER_PROVIDER_PUSH",
        "SENDGRID_BASE_URL",
    ]


def test_incomplete_credentials_are_a_fault_not_the_sandbox(tmp_path: Path) -> None:
    faults_text = faults({"DISPATCHER_TEMPLATES": str(tmp_path), "TWILIO_AUTH_TOKEN": TOKEN})
    assert "TWILIO_ACCOUNT_SID is missing: sms goes through twilio" in faults_text


@pytest.mark.parametrize("sender", ["+32470000000", "Bank", "BANK 24", "1A", SERVICE])
def test_numbers_names_and_services_may_send_sms(valid: Environ, sender: str) -> None:
    assert Settings.from_environment(valid | {"TWILIO_SMS_SENDER": sender}).accounts["twilio"].sms_sender == sender


@pytest.mark.parametrize(
    "content", ["", "[]", '{"type": "authorized_user"}', '{"type": "service_account", "private_key": "hunter2"}']
)
def test_a_file_that_is_no_service_account_is_not_shown(valid: Environ, tmp_path: Path, content: str) -> None:
    (tmp_path / "account.json").write_text(content)
    faults_text = faults(valid)
    assert "that must be the JSON key file of a service account" in faults_text
    assert "hunter2" not in faults_text


def test_a_misspelt_variable_gets_a_hint(valid: Environ) -> None:
    misspelt = {"DISPATCHER_BROKR_URL": "x", "DISPATCHER_COLOUR": "x", "TWILIO_SMS_SENDERS": "x", "TWILIO_EDGE": "x"}
    assert Settings.from_environment(valid | misspelt).warnings == (
        "DISPATCHER_BROKR_URL is not a variable of this program: did you mean DISPATCHER_BROKER_URL?",
        "DISPATCHER_COLOUR is not a variable of this program: it has no effect.",
        "TWILIO_SMS_SENDERS is not a variable of this program: did you mean TWILIO_SMS_SENDER?",
    )


def test_no_secret_is_in_the_repr(valid: Environ) -> None:
    shown = repr(Settings.from_environment(valid | TELNYX))
    for secret in ("KEY0_telnyx", "pass-db", "pass-broker", "pass-smtp", "s3cret", "SG.k3y", TOKEN, "pr1vate"):
        assert secret not in shown


def test_a_missing_secret_key_is_created_once_for_the_owner_only(tmp_path: Path) -> None:
    environ = {"DISPATCHER_TEMPLATES": str(tmp_path), "DISPATCHER_HOME": str(tmp_path / "home")}
    with ThreadPool(8) as pool:
        keys = {settings.secret_key for settings in pool.map(load, [environ] * 32)}
    assert len(keys) == 1, "all processes that start at once have the same key"
    assert len(keys.pop()) >= 32
    key_file = tmp_path / "home" / "secret.key"
    assert stat.S_IMODE(key_file.stat().st_mode) == 0o600
    assert [file.name for file in key_file.parent.iterdir()] == ["secret.key"]
    key_file.chmod(0o644)
    with pytest.raises(InvalidSettings, match="can be read by others"):
        load(environ)


def test_a_secret_key_of_the_environment_leaves_no_file(valid: Environ) -> None:
    assert load(valid).secret_key == valid["DISPATCHER_SECRET_KEY"]
    assert not Path(valid["DISPATCHER_HOME"]).exists()


def test_rates_and_second_providers_are_read_and_checked(valid: Environ) -> None:
    requested = {
        "DISPATCHER_RATE_SMS": "2.5",
        "DISPATCHER_FAILOVER_EMAIL": "smtp",
        "DISPATCHER_FAILOVER_SMS": "telnyx:20",
        **TELNYX,
    }
    settings = Settings.from_environment(valid | requested)
    assert (settings.rates, settings.accounts["sendgrid"].mails_per_request) == ({Channel.SMS: 2.5}, 100)
    assert settings.seconds == {Channel.EMAIL: SecondProvider("smtp"), Channel.SMS: SecondProvider("telnyx", 0.2)}
    assert settings.providers[Channel.SMS] == "twilio"
    del valid["SMTP_URL"]
    wrong = {"DISPATCHER_RATE_PUSH": "fast", "SENDGRID_MAILS_PER_REQUEST": "1001", "DISPATCHER_FAILOVER_EMAIL": "smtp"}
    faults_text = faults(valid | wrong | {"DISPATCHER_FAILOVER_SMS": "telnyx"})
    assert all(
        name in faults_text for name in (*wrong, "SMTP_URL is missing", "TELNYX_API_KEY is missing: DISPATCHER_FAILOVER_SMS")
    )


@pytest.mark.parametrize("value", ["telnyx:100", "telnyx:-5", "smtp", "outbox", "twilio"])
def test_a_second_provider_is_another_one_that_reaches_people(valid: Environ, value: str) -> None:
    faults_text = faults(valid | {"DISPATCHER_PROVIDER_SMS": "twilio", "DISPATCHER_FAILOVER_SMS": value, **TELNYX})
    assert faults_text.startswith(f"DISPATCHER_FAILOVER_SMS is '{value}'")


def test_a_second_provider_s_credentials_keep_it_second(valid: Environ) -> None:
    del valid["TWILIO_SMS_SENDER"]
    only_telnyx = {name: value for name, value in valid.items() if not name.startswith("TWILIO_")} | TELNYX
    assert Settings.from_environment(only_telnyx).providers[Channel.SMS] == "telnyx"
    assert Settings.from_environment(only_telnyx | {"DISPATCHER_FAILOVER_SMS": "telnyx"}).providers[Channel.SMS] == "sandbox"


def test_the_second_provider_of_e_mail_follows_the_first(valid: Environ) -> None:
    requested = {"DISPATCHER_PROVIDER_PUSH": "outbox", "DISPATCHER_FAILOVER_EMAIL": "smtp", "DISPATCHER_FAILOVER_SMS": "telnyx:5"}
    settings_ = Settings.from_environment(valid | requested | TELNYX)
    names = {channel: provider.name for channel, provider in bootstrap.providers(settings_).items()}
    assert names == {
        Channel.EMAIL: "sendgrid+smtp",
        Channel.SMS: "twilio+telnyx",
        Channel.WHATSAPP: "twilio",
        Channel.PUSH: "outbox",
    }


def test_two_providers_share_a_channel_and_take_over(valid: Environ) -> None:
    with running() as sandbox:
        overrides = {"TWILIO_BASE_URL": sandbox.url, "TELNYX_BASE_URL": sandbox.url, "DISPATCHER_FAILOVER_SMS": "telnyx:40"}
        overrides["DISPATCHER_PROVIDER_PUSH"] = "outbox"
        provider = bootstrap.providers(Settings.from_environment(valid | TELNYX | overrides))[Channel.SMS]
        batch = [Outbound(f"m-{number}", Channel.SMS, f"+32470000{number:03}", Sms("Bonjour")) for number in range(200)]
        assert all(isinstance(result, Receipt) for _, result in provider.send(batch, window_of(30)))
        taken = Counter(row["provider"] for row in sandbox.log())
        assert taken["twilio"] + taken["telnyx"] == 200
        assert 40 < taken["telnyx"] < 120
        sandbox.set_faults([{"provider": "twilio", "status": 429}])
        assert all(isinstance(result, Receipt) for _, result in provider.send(batch, window_of(30)))
        assert len({row["message_id"] for row in sandbox.log(after=200)}) == 200
        provider.close()


def test_sandbox_keys_verify_webhooks_until_real_ones_are_set(valid: Environ, tmp_path: Path) -> None:
    home = {"DISPATCHER_HOME": str(tmp_path), "DISPATCHER_TEMPLATES": str(tmp_path)}
    keys = bootstrap.webhook_keys(Settings.from_environment(home))
    assert keys["sendgrid"].startswith("MFkw")
    assert keys["twilio"] == "sandbox"
    assert bootstrap.webhook_keys(Settings.from_environment(valid | home | TELNYX)) == {
        "sendgrid": KEY,
        "twilio": TOKEN,
        "telnyx": TELNYX["TELNYX_PUBLIC_KEY"],
    }


def test_a_ring_of_secret_keys_is_read_from_variable_and_file(valid: Environ, tmp_path: Path) -> None:
    new, old = "n" * 40, "o" * 40
    assert load(valid | {"DISPATCHER_SECRET_KEY": f"{new},{old}"}).secret_key == f"{new},{old}"
    home = tmp_path / "home"
    key_file = home / "secret.key"
    generated = load({"DISPATCHER_HOME": str(home), "DISPATCHER_TEMPLATES": valid["DISPATCHER_TEMPLATES"]}).secret_key
    key_file.write_text(f"{new}\n{generated}\n")
    environ = {"DISPATCHER_HOME": str(home), "DISPATCHER_TEMPLATES": valid["DISPATCHER_TEMPLATES"]}
    assert load(environ).secret_key == f"{new},{generated}"
    for bad in ("", "short\n", f"{new}\n{new}\n"):
        key_file.write_text(bad)
        with pytest.raises(InvalidSettings, match="needs a key on each line"):
            load(environ)


@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        (f"{'n' * 40},short", "key 2 of DISPATCHER_SECRET_KEY has 5 characters"),
        (f"{'n' * 40},", "key 2 of DISPATCHER_SECRET_KEY has 0 characters"),
        (f"{'n' * 40},{'n' * 40}", "the same key twice"),
    ],
)
def test_each_key_of_a_ring_is_checked(valid: Environ, keys: str, fault: str) -> None:
    with pytest.raises(InvalidSettings, match=fault):
        load(valid | {"DISPATCHER_SECRET_KEY": keys})


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("sasl.username=u\nsasl.password=pw-secret", "sasl.username, sasl.password needs security.protocol=sasl_ssl"),
        ("ssl.ca.location=/none", "ssl.ca.location needs security.protocol=ssl or sasl_ssl"),
        ("security.protocol=tls", "must be one of plaintext, ssl, sasl_plaintext, sasl_ssl"),
        ("security.protocol=SASL_SSL", "which needs sasl.mechanism"),
        ("security.protocol=sasl_ssl\nsasl.mechanism=SCRAM-SHA-512\nsasl.username=u", "sasl.password is missing"),
        ("security.protocol=ssl\nssl.ca.location=/none/ca.pem", "ssl.ca.location names no file"),
        ("security.protocol=ssl\nssl.key.location=/dev/null", "need each other"),
    ],
)
def test_kafka_properties_that_do_not_fit_are_an_error(valid: Environ, tmp_path: Path, lines: str, fault: str) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text(lines)
    with pytest.raises(InvalidSettings, match=fault) as raised:
        Settings.from_environment(
            valid | {"DISPATCHER_KAFKA_BROKERS": "k-1.example:9092", "DISPATCHER_KAFKA_PROPERTIES": str(path)}
        )
    assert "pw-secret" not in str(raised.value)


@pytest.mark.parametrize("hosts", ["crm.intern.example:8443", "127.0.0.1:80", "https://crm.intern.example"])
def test_webhook_hosts_have_no_port(valid: Environ, hosts: str) -> None:
    with pytest.raises(InvalidSettings, match=r"DISPATCHER_WEBHOOK_HOSTS has .* without https:// and port"):
        Settings.from_environment(valid | {"DISPATCHER_WEBHOOK_HOSTS": hosts})


def test_audience_urls_are_prefixes_and_show_no_password(valid: Environ) -> None:
    read = Settings.from_environment(valid | {"DISPATCHER_AUDIENCE_URLS": "https://CRM.example:443/out/, s3://bank/lists"})
    assert [(each.place, each.path) for each in read.audience_urls] == [("crm.example", "/out/"), ("bank", "/lists")]
    with pytest.raises(InvalidSettings, match=r"DISPATCHER_AUDIENCE_URLS, URL 2 \(not shown\) must not hold a user") as raised:
        Settings.from_environment(valid | {"DISPATCHER_AUDIENCE_URLS": "https://a.example,https://u:pw-secret@b.example"})
    assert "pw-secret" not in str(raised.value)


def test_kafka_is_read_and_its_faults_show_no_password(valid: Environ, tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text(
        "# to the brokers of the bank\nsecurity.protocol = SASL_SSL\n"
        "sasl.mechanism=PLAIN\nsasl.username=d\nsasl.password=pass=word\n\n"
    )
    valid |= {"DISPATCHER_KAFKA_BROKERS": "k-1.example:9092,k-2.example:9092", "DISPATCHER_KAFKA_PROPERTIES": str(path)}
    read = Settings.from_environment(valid)
    assert read.kafka is not None
    assert (read.kafka.topic, read.kafka.properties) == (
        "dispatcher.events",
        {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.username": "d", "sasl.password": "pass=word"},
    )
    assert "word" not in repr(read)
    path.write_text("sasl.password pass-kafka\nacks=0\nenable.idempotence=false\n")
    valid |= {"DISPATCHER_KAFKA_BROKERS": "k-1.example", "DISPATCHER_KAFKA_TOPIC": "all events"}
    with pytest.raises(InvalidSettings) as raised:
        Settings.from_environment(valid)
    faults = "\n".join(raised.value.faults)
    assert "pass-kafka" not in faults
    for named in (
        "DISPATCHER_KAFKA_BROKERS",
        "DISPATCHER_KAFKA_TOPIC",
        f"{path}:1 (not shown)",
        f"{path}:2 sets acks",
        f"{path}:3 sets",
    ):
        assert named in faults


def test_event_files_are_read_and_checked(valid: Environ, tmp_path: Path) -> None:
    assert Settings.from_environment(valid).event_files is None
    valid |= {"DISPATCHER_FILES_URL": str(tmp_path / "lake"), "DISPATCHER_FILES_FORMATS": "parquet, csv,csv"}
    read = Settings.from_environment(valid).event_files
    assert read is not None
    assert (read.url, read.every, read.formats) == (str(tmp_path / "lake"), "day", ("parquet", "csv"))
    valid |= {"DISPATCHER_FILES_EVERY": "week", "DISPATCHER_FILES_FORMATS": "xlsx"}
    with pytest.raises(InvalidSettings, match=r"DISPATCHER_FILES_EVERY is 'week'(.|\n)*DISPATCHER_FILES_FORMATS is 'xlsx'"):
        Settings.from_environment(valid)


def test_commands_about_templates_leave_no_file_where_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPATCHER_SECRET_KEY", raising=False)
    assert bootstrap.file_settings().templates.is_dir()
    assert list(tmp_path.iterdir()) == []
