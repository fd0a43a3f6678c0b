INSERT INTO users (id, name, roles, created_at, created_by) VALUES ('user:jana', 'Jana Maes', '{admin}', '2026-11-29 10:00+00', 'os:root');
INSERT INTO sessions (id_hash, user_id, place, address, started_at, seen_at, confirmed_at, ends_at)
VALUES ('\x01', 'user:jana', 'console', '192.0.2.1', '2026-11-29 10:00+00', '2026-11-29 10:00+00', '2026-11-29 10:00+00', '2026-11-29 22:00+00');
