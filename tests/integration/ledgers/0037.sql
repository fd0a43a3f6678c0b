INSERT INTO erasure_requests (recipient_id, reason, requested_by, requested_at, decided_by, decided_at, approved)
VALUES ('c-2', 'asked in the branch', 'user:jana', '2026-11-29T07:00:00Z', 'user:bart', '2026-11-29T07:30:00Z', false);
