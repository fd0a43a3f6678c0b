INSERT INTO campaign_drafts (owner, form, upload, file_name, updated_at)
VALUES ('user:jana', '{"id": "spring", "template": "loan_offer"}', 'web-1', 'customers.xlsx', '2026-11-29 10:00+00');
INSERT INTO column_mappings (owner, template, header, columns, used_at)
VALUES ('user:jana', 'loan_offer', '\x01', '{recipient,data.project,-}', '2026-11-29 10:00+00');
