INSERT INTO whatsapp_templates (account, template, language, mode, digest, name, content_sid, category, status, rejection_reason,
                                changed_at, checked_at)
VALUES ('twilio:AC55555555555555555555555555555555', 'loan_offer', 'nl', 'tailored', 'd1', 'loan_offer_tailored_d1',
        'HX00000000000000000000000000000001', 'MARKETING', 'approved', '', '2026-11-28T20:00Z', '2026-11-28T20:00Z');
