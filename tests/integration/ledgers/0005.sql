INSERT INTO published_tasks (task, published_at) VALUES ('settle_events', '2026-11-23 20:59:00+00');
