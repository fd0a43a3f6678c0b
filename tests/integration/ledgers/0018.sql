INSERT INTO test_sends (template, digest, tester, channel, language, mode, actor, at, state, provider, receipt, settled_at)
VALUES ('loan_offer', repeat('0', 64), 'jana', 'email', 'nl', 'standard', 'Bart', '2026-11-23T11:00:00Z', 'accepted', 'sendgrid', 'r-1',
        '2026-11-23T11:00:01Z');
INSERT INTO template_first_approvals (template, digest, actor, comment, at, after_no)
VALUES ('loan_offer', repeat('0', 64), 'Bart', 'terms of 2026', '2026-11-23T11:00:00Z', 0);
