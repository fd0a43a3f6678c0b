-- The claim of the lost worker had started; messages know the address that they were sent to.
INSERT INTO claim_starts (claim_no) VALUES (nextval('claim_number'));
UPDATE messages SET claim_no = currval('claim_number') WHERE state = 'claimed';
UPDATE messages m SET address_key = r.email_key FROM recipients r WHERE r.id = m.recipient_id AND m.channel = 'email';
