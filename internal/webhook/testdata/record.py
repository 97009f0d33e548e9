"""Writes vectors.json: what CueAPI's own SDK accepts. Run: pip install cueapi-sdk==0.1.3 standardwebhooks==1.1.0; python record.py"""
import base64, hashlib, hmac, json, pathlib, time
from datetime import datetime, timezone
from cueapi import verify_webhook
from standardwebhooks.webhooks import Webhook

SECRET = "whsec_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
DOCUMENTS = [
    '{}', '[]', 'null', 'true', 'false', '""', ' [ 1 , 2 ,\n\t3 ] ', '{"b":1,"a":2}', '{"a":1,"a":2}', '{"b":1,"a":{"d":[],"c":{}},"b":3,"a":0}',
    '{"Z":1,"a":2,"\u00e9":3,"\\ud83d\\ude00":4,"\uffff":5,"":6}', '{"\\u0061":1,"a":2,"B":3}', '"\\u0041\\/\\b\\f\\n\\r\\t\\"\\\\"', '"/<>&\'"',
    '"\u007f\u0080\u00a0\u2028\u2029\ufeff"', '"\\ud83d\\ude00 \U0001f600 \U0010ffff"', '"\\u0000\\u001f"', '"\\uFFFF\\uAbCd"',
    '0', '-0', '-0.0', '0.0', '1.0', '1.10', '10e0', '1E5', '1e5', '1e+5', '1e-4', '0.0001', '0.00001', '1e-5', '1.5e-7', '123456789012345678901234567890',
    '-123456789012345678901234567890', '9007199254740993', '9007199254740993.0', '1e15', '1e16', '9999999999999998.0', '12345678901234567.0', '1e17', '1e22', '1e23',
    '1.7976931348623157e308', '5e-324', '2.2250738585072014e-308', '1e-400', '-1e-400', '0.1', '0.30000000000000004', '100.0', '123456.789e3', '1e100', '3.141592653589793238462643',
    '{"attempt":1,"cue_id":"cue_0123456789ab","execution_id":"5f0c1b9e-0d7a-4c7e-9a57-1c2b3d4e5f60","name":"B\u00fcro \u2013 n\u00e4chtlich","payload":{"n":1.0,"list":[1,2.50,{"z":null,"a":true}],"text":"a\\u00e9<b>"},"scheduled_for":"2026-11-22T09:05:00+00:00"}',
    '9' * 4300, '[' * 60 + ']' * 60,
]
vectors = []
for document in DOCUMENTS:
    body = json.dumps(json.loads(document), sort_keys=True)
    at = int(time.time())
    signature = "v1=" + hmac.new(SECRET.encode(), f"{at}.{body}".encode(), hashlib.sha256).hexdigest()
    assert verify_webhook(payload=body.encode(), signature=signature, secret=SECRET, timestamp=str(at)), document
    standard = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(at, tz=timezone.utc), body)
    vectors.append({"document": document, "body": body, "timestamp": at, "cueapi": signature, "standard": standard})
pathlib.Path(__file__).with_name("vectors.json").write_text(json.dumps({"secret": SECRET, "id": "msg_1", "vectors": vectors}, indent=1) + "\n")
