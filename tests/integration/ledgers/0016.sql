INSERT INTO suppression_lookups (actor, at, shown) VALUES ('ops', '2026-11-20 10:00+00', '{1}');
