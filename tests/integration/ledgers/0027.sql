INSERT INTO line_upload_hashes (upload, line, hash) SELECT number, 12000, -4242 FROM line_uploads WHERE id = 'nightly-2026-11-29';
