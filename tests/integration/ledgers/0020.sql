INSERT INTO campaign_edits (campaign_no, version, at, actor, changes, is_material)
SELECT no, 1, created_at, 'anna', '{"priority": [5, 3]}', false FROM campaigns WHERE id = 'later';
