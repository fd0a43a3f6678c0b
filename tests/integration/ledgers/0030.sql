INSERT INTO audit_log (no, at, principal_id, principal_name, kind, place, address, action, outcome, object_type, object_id, reason, detail, previous_hash, hash)
VALUES (-1, '2026-11-29 10:00+00', 'user:jana', 'Jana Maes', 'user', 'console', '192.0.2.1', 'look', 'begun', 'message', '202611-1-0-0', '', '{}', '\x00', '\x01');
