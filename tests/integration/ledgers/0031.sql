INSERT INTO contract_texts (version, entity, language, digest, body, stored_at)
VALUES ('1', '', 'nl', 'f0e4c2f76c58916ec258f246851bea091d14d4247a2fc3e18694461b1816e13b', 'title = "Contract"', '2026-11-29T03:00:00Z');
