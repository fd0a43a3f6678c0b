INSERT INTO provider_minutes (minute, provider, channel, accepted, refused, throttled, unavailable, uncertain, answers, put_back,
    wait_seconds_max, openings, open_until)
VALUES ('2014-03-12 11:00:00+00', 'sendgrid', 'email', 3, 1, 0, 0, 0, '{0,3,1,0,0,0,0,0,0,0,0,0,0,0}', 0, 0, 1, '2014-03-12 11:00:40+00');
INSERT INTO lane_minutes (minute, lane, tasks_max) VALUES ('2014-03-12 11:00:00+00', 'campaign', 4);
INSERT INTO opt_out_origins (event_no, campaign_no, period, chunk, row, leg, recorded_at)
VALUES (1, 1, 201403, 1, 0, 0, '2014-03-12 12:00:00+00');
INSERT INTO report_minutes (campaign_no, measure, minute, messages) VALUES (1, 'delivered', '2014-03-12 11:00:00+00', 3);
INSERT INTO whatsapp_pushes (account, until) VALUES ('twilio:AC1', '2014-03-12 11:01:00+00');
