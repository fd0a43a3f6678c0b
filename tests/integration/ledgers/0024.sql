INSERT INTO dead_letters SELECT period, chunk, row, leg, updated_at FROM messages ORDER BY period, chunk, row, leg LIMIT 1;
