INSERT INTO signs_of_life VALUES ('beat', '2026-11-28 12:00:00+00', 'worker-1:4711'), ('campaign', '2026-11-28 12:00:00+00', 'worker-1:4712');
