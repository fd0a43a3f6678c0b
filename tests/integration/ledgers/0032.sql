INSERT INTO erasure_requests (recipient_id, reason, requested_by, requested_at)
VALUES ('c-1', 'asked by letter', 'user:jana', '2026-11-29T06:00:00Z');
