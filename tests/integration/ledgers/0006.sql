INSERT INTO template_sources (digest, template, files) VALUES
    ('7c6208c38264aa9b124c874c7037f9253312851499a796851b65064e7170726d', 'loan_offer', '{"loan_offer/template.toml": ""}');
