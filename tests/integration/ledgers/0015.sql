-- An endpoint that failed once, with a dead range, and one that is gone.
INSERT INTO event_endpoints (id, url, types, entities, campaigns, batch_max, lease, created_by, created_at)
VALUES ('crm', 'https://events.crm.example/hook?token=1', '{consent,message.failed}', '{}', '{}', 100, 7, 'api:crm', '2026-11-28 20:00+00');
INSERT INTO event_endpoints (id, url, types, entities, campaigns, batch_max, state, disabled_reason, secret_version, old_secret_until,
                             delivered_at, created_by, created_at)
VALUES ('partner', 'https://partner.example/', '{}', '{kbc-bank}', '{spring-*}', 1, 'disabled', 'gone', 2, '2026-11-29 20:00+00',
        '2026-11-28 20:01+00', 'jana', '2026-11-28 20:00+00');
INSERT INTO endpoint_cursors (endpoint_no, state, cursor, in_flight, attempts, failing_since, error, next_try_at, since, used_at)
SELECT no, 'live', 0, 1, 1, '2026-11-28 20:02+00', 'http_503', '2026-11-28 20:03+00', created_at, '2026-11-28 20:02+00'
FROM event_endpoints;
INSERT INTO endpoint_cursors (endpoint_no, state, cursor, last, attempts, error, next_try_at, since)
SELECT no, 'dead', 0, 1, 20, 'timeout', '2026-11-28 20:03+00', '2026-11-28 20:03+00' FROM event_endpoints WHERE id = 'crm';
