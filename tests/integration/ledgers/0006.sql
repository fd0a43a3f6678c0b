-- A version that nobody uses any more.
INSERT INTO template_sources (digest, template, files) VALUES (repeat('0', 64), 'loan_offer', '{"loan_offer/template.toml": ""}');
