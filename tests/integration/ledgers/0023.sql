-- A recurring campaign with a run of each state, and an endpoint that somebody changed.
INSERT INTO schedules (id, definition, state, submitted_by, approved_by, created_at, next_at)
VALUES ('weekly', '{"id": "weekly", "cron": "0 9 * * 1", "zone": "Europe/Brussels", "campaign": {"template": "loan_offer", "audience": {"upload": "weekly-*"}}}',
        'active', 'anna', 'bert', '2026-11-28 20:00+00', '2026-12-21 08:00+00');
INSERT INTO schedule_changes (schedule_no, at, actor, action, state)
SELECT no, created_at, 'anna', 'add', 'awaiting_approval' FROM schedules;
INSERT INTO schedule_runs (schedule_no, due_at, campaign_id, state, reason, message, upload, sha256, settled_at)
SELECT no, due_at::timestamptz, campaign_id, s.state, reason, '', upload, sha256, settled_at::timestamptz FROM schedules, (VALUES
    ('2026-11-30 08:00+00', 'weekly-2026-11-30T0900', 'started', NULL, 'weekly-1', 'aa', '2026-11-30 08:00+00'),
    ('2026-12-07 08:00+00', 'weekly-2026-12-07T0900', 'failed', 'audience_unchanged', NULL, NULL, '2026-12-07 08:00+00'),
    ('2026-12-14 08:00+00', 'weekly-2026-12-14T0900', 'pending', NULL, 'weekly-2', 'bb', NULL)
) s (due_at, campaign_id, state, reason, upload, sha256, settled_at);
INSERT INTO endpoint_changes (endpoint_no, endpoint_id, at, actor, action, reason, detail)
SELECT no, id, '2026-11-28 21:00+00', 'anna', 'skip', 'unknown there', '{"first": 1, "last": 1}' FROM event_endpoints WHERE id = 'crm';
