INSERT INTO audience_loads (campaign_no, digest, rows_read, taken, path, size, modified_ns, worked_at, progress_at, ended)
SELECT no, decode(repeat('00', 64), 'hex'), 12000, 11990, '/data/later.jsonl', 1500000, 1795381200000000000, created_at, created_at, 'complete'
FROM campaigns WHERE id = 'later';
