INSERT INTO campaign_dry_runs (campaign_no, made_at, actor, policy, templates, counts)
SELECT no, created_at, 'user:anna', 'p', '{"loan_offer": "d"}',
       '{"rows": 1, "is_part": false, "audience": 1, "invalid": 0, "states": {"sendable": 1}, "reasons": {},
         "channels": {"email": 1}, "variants": {}, "segments": {}, "needs": [], "cost": null, "obstacles": [], "as_of": null}'
FROM campaigns WHERE id = 'later';
