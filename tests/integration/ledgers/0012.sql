INSERT INTO console_sessions (id_hash, key_hash, actor, started_at, ends_at) VALUES ('\x01', '\x02', 'ops', '2026-11-20 10:00+00', '2026-11-20 22:00+00');
INSERT INTO sign_in_failures (subject, failures, last_at) VALUES ('\x03', 2, '2026-11-20 10:00+00');
