-- Kafka is away; files have one part of an hour. A campaign whose balance has to be counted again.
INSERT INTO event_sinks (id, cursor, lease, attempts, failing_since, error, next_try_at)
VALUES ('kafka', 0, 3, 2, '2026-11-28 20:02+00', '_TRANSPORT', '2026-11-28 20:03+00');
INSERT INTO event_sinks (id, cursor, progress, lease, done_at)
VALUES ('files', 1, '{"start": "2026-11-28T20:00:00+00:00", "end": "2026-11-28T21:00:00+00:00", "first": 1, "files": []}', 4, '2026-11-28 21:01+00');
INSERT INTO campaign_balances (campaign_no, changed, counted, state, next_count_at)
SELECT no, 1, 0, 'running', '2026-11-28 20:03+00' FROM campaigns LIMIT 1;
