INSERT INTO decision_skeletons (name, document, first_used_at) VALUES ('sOajtQ1tVmJJ', '{"is": "send", "job": ["kbc-bank", "loan_offer",
    "commercial", "own"], "legs": [["email", "tailored", "contract", {"consent": 0}]], "used": ["identity", "product"], "policy": "00",
    "choices": {"offers.own": ["tailored", {"consent": 0}, {"source": 1}, {"moment": 2}]}}', '2014-03-12 11:00:00+00');
