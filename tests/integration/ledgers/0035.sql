INSERT INTO ledger_generations (began_at, place, cause, restored_to, decisions, released_at, released_by)
VALUES ('2026-11-29 09:00:00+00', '', 'claim_missing', '2026-11-29 08:00:00+00', '{"spring": "unresolved"}', '2026-11-29 10:00:00+00', 'user:anna');
