INSERT INTO refused_jobs (digest, task, key, reason, errors, count, first_at, last_at)
VALUES (decode(repeat('00', 16), 'hex'), 'dispatcher.trigger', 'order-17', 'unknown_template', '[["template", "unknown template"]]', 3,
        '2026-11-23T11:00:00Z', '2026-11-23T12:00:00Z');
