INSERT INTO ledger_generations (began_at, place, cause, restored_to) VALUES ('2026-11-29 09:00:00+00', '7/5/16/00000001', 'claim_missing', '2026-11-29 08:00:00+00');
