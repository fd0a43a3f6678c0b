INSERT INTO campaign_paces (campaign_no, next_send_at) SELECT no, '2026-11-24 09:00:00+00' FROM campaigns WHERE id = 'later';
