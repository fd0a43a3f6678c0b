INSERT INTO conversions (campaign_no, goal, recipient_id, at) VALUES (1, 'loan_signed', 'c-1', '2014-03-12 11:00:00+00');
