-- One event that is published, and one that waits.
INSERT INTO published_events (first, last, kind, at, events, previous_hash, hash) VALUES (
    1, 1, 'recipient', '2026-11-28 20:00+00',
    '\x78017d504b6ec23010bdcb6c49fcc9a24239472f3038a362208eeb99444588bb771cd2b240c2b2bc9837efe377830105a1bf41a11073a424d043683ddc9b150a53121dca35930298f325069438257be229c16389c391465581a348e6deda9198f18bd81c309d0dfde0982f64176f695131b60f02db7f53b378b309c64185dcebf16a96b148acee67ba6e391b60fa9e29859aef95e52a8da7b9acf8db7c75315358a8b03aa89a37aecee6c389c25f2d0d481cab55e7ba8fd6fbb6db7f76ae77f5eed657295b5b43e48ca2dd14f3fc2815641ae0fe0b1e17771c',
    '\xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855', '\xe0d19749bddc9ed0f8e3a58ac401512829abf65261845935ef156ee7900b7831');
UPDATE event_stream SET last = 1, hash = '\xe0d19749bddc9ed0f8e3a58ac401512829abf65261845935ef156ee7900b7831';
INSERT INTO outbox (kind, at, changes) VALUES ('recipient', '2026-11-28 20:01+00', '[["c-2"]]');
