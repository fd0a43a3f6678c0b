INSERT INTO test_sends (template, digest, tester, channel, language, mode, actor, at, state, provider, receipt, settled_at)
VALUES ('loan_offer', repeat('0', 64), 'jana', 'email', 'nl', 'standard', 'Bart', '2026-11-23T11:00:00Z', 'accepted', 'sendgrid', 'r-1',
        '2026-11-23T11:00:01Z');
