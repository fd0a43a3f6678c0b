INSERT INTO line_uploads (caller, kind, id, lines_taken, changed_at)
VALUES ('api:crm', 'recipients', 'nightly-2026-11-29', 12000, '2026-11-29T03:00:00Z');
