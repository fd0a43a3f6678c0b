INSERT INTO secret_keys (fingerprint, introduced_at, rekeyed_to, rekeyed, rekeyed_at)
VALUES ('\xb5a61b2a7a0e5dc13a8f5ed9dbb40aa6', '2026-11-20 09:00+00', NULL, 0, '2026-11-20 09:00+00');
INSERT INTO address_aliases (old_key, new_key) VALUES ('\x01', '\x02');
INSERT INTO policies_in_force (digest, actor, at) SELECT digest, 'first start', '2026-11-20 09:00+00' FROM policies LIMIT 1;
