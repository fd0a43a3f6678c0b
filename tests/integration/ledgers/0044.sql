INSERT INTO canaries (recipient_id, way, address_keys, made_at)
VALUES ('canary:api:20261120110000', 'api', '{"\\x00112233445566778899aabbccddeeff"}', '2026-11-20 11:00:00+00');
INSERT INTO canary_rounds (way, recipient_id, step, stepped_at, started_at, answered_at, closed_at, outcome, bound_seconds, jobs,
                           claim_seconds, hand_off_seconds, arrival_seconds)
VALUES ('api', 'canary:api:20261120110000', 4, '2026-11-20 11:00:40+00', '2026-11-20 11:00:00+00', '2026-11-20 11:00:20+00',
        '2026-11-20 11:00:50+00', 'measured', 60, 20, 0, 0.01, 0.2);
INSERT INTO canary_jobs (round_no, period, chunk, channel, step) VALUES (1, 202611, 1, 'email', 1);
