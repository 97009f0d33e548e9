"""Drives the published Python SDK (package cueapi-sdk) against a running server.

    python sdk.py                 prints the names of the scenarios, one a line
    python sdk.py SCENARIO        runs one; the address is in UNSTUCK_URL, a key with scope full in UNSTUCK_KEY

A scenario that does not hold ends with a traceback. What the SDK cannot do itself (fire, claim, make keys) goes over plain HTTP.
"""

import json
import os
import sys
import threading
import time
from datetime import datetime, timedelta, timezone

from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
from cueapi import CueAPI, CueAPIError, CuePayload, verify_webhook

YEARLY = "0 0 1 1 *"
scenarios = {}


def scenario(function):
    scenarios[function.__name__] = function
    return function


class World:
    """The server, seen through the SDK and beside it."""

    def __init__(self, url, key):
        self.url, self.key = url, key
        self.sdk = CueAPI(key, base_url=url)

    def post(self, path, body=None, key=None):
        headers = {"Authorization": f"Bearer {key or self.key}"}
        answer = httpx.post(self.url + path, json=body or {}, headers=headers)
        answer.raise_for_status()
        return answer.json()

    def new_key(self, scope):
        made = self.post("/v1/keys", {"name": f"sdk {scope}", "scope": scope})
        return made["id"], made["key"]

    def as_key(self, key):
        return CueAPI(key, base_url=self.url)

    def cue(self, name, **fields):
        return self.sdk.cues.create(name=name, cron=YEARLY, transport="worker", **fields)

    def claimed(self, cue):
        """Fires a cue and claims the execution, without a lease token as every old client does."""
        fired = self.post(f"/v1/cues/{cue.id}/fire")["id"]
        self.post(f"/v1/executions/{fired}/claim", {"worker_id": "sdk-worker"})
        return fired


def refused(call, *args, **fields):
    """The status and the code of the error that a call must end in."""
    try:
        answer = call(*args, **fields)
    except CueAPIError as error:
        assert error.message and error.message != "Unknown error", error.body
        assert error.body["detail"]["error"] == error.body["error"], error.body
        return error.status_code, error.code
    raise AssertionError(f"not refused: {answer!r}")


def equal(got, wanted):
    assert got == wanted, f"got {got!r}, want {wanted!r}"


@scenario
def create(w):
    payload = CuePayload().task("report").kind("data_sync").agent("socrates").instruction("Größe < 3 & > 2").extra("n", [1, 2.5, None]).build()
    cue = w.cue(
        "daily-report",
        timezone="Europe/Berlin",
        payload=payload,
        description="numbers of yesterday",
        retry={"max_attempts": 5, "backoff_minutes": [2, 4]},
        on_failure={"email": False, "webhook": None, "pause": True},
    )
    assert cue.id.startswith("cue_") and len(cue.id) == 16, cue.id
    equal((cue.name, cue.status, cue.transport, cue.description), ("daily-report", "active", "worker", "numbers of yesterday"))
    equal((cue.schedule.type, cue.schedule.cron, cue.schedule.at, cue.schedule.timezone), ("recurring", YEARLY, None, "Europe/Berlin"))
    equal(cue.payload, payload)
    equal((cue.retry.max_attempts, cue.retry.backoff_minutes), (5, [2, 4]))
    equal((cue.on_failure.email, cue.on_failure.webhook, cue.on_failure.pause), (False, None, True))
    equal((cue.run_count, cue.fired_count, cue.last_run), (0, 0, None))
    local = cue.next_run.astimezone(timezone(timedelta(hours=1)))
    equal((local.month, local.day, local.hour, local.minute), (1, 1, 0, 0))
    assert "worker" in cue.warning, cue.warning  # none has spoken yet


@scenario
def create_once(w):
    at = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(days=1)
    cue = w.sdk.cues.create(name="once", at=at, transport="worker")
    equal((cue.schedule.type, cue.schedule.cron, cue.schedule.at, cue.next_run), ("once", None, at, at))
    equal((cue.payload, cue.retry.max_attempts, cue.retry.backoff_minutes), ({}, 3, [1, 5, 15]))
    equal((cue.callback.url, cue.callback.method, cue.callback.headers), (None, "POST", {}))
    equal(w.sdk.cues.create(name="once-text", at=at.isoformat(), transport="worker").next_run, at)


@scenario
def list_and_get(w):
    made = [w.cue(f"listed-{i}") for i in range(3)]
    w.sdk.cues.pause(made[1].id)
    page = w.sdk.cues.list()
    equal((page.total, page.limit, page.offset), (3, 20, 0))
    equal([c.id for c in page.cues], [c.id for c in reversed(made)])
    equal([c.name for c in w.sdk.cues.list(limit=1, offset=1).cues], ["listed-1"])
    equal([c.id for c in w.sdk.cues.list(status="paused").cues], [made[1].id])
    equal(w.sdk.cues.list(status="active").total, 2)
    equal(w.sdk.cues.get(made[0].id).model_dump(exclude={"warning"}), made[0].model_dump(exclude={"warning"}))


@scenario
def update_cron_keeps_the_zone(w):
    cue = w.cue("zoned", timezone="Asia/Tokyo")
    changed = w.sdk.cues.update(cue.id, cron="0 9 1 1 *")
    equal((changed.schedule.cron, changed.schedule.timezone), ("0 9 1 1 *", "Asia/Tokyo"))
    equal((changed.next_run.hour, changed.next_run.minute), (0, 0))  # nine in Tokyo
    equal(w.sdk.cues.update(cue.id, cron="0 9 1 1 *", timezone="UTC").next_run.hour, 9)


@scenario
def update_callback_keeps_method_and_headers(w):
    cue = w.cue("called", callback="https://example.com/a", callback_method="PUT", callback_headers={"X-Team": "crm"})
    changed = w.sdk.cues.update(cue.id, callback="https://example.com/b")
    # values of headers are secrets, which nobody is shown; sent back like this they stay as they are
    equal((changed.callback.url, changed.callback.method, changed.callback.headers), ("https://example.com/b", "PUT", {"X-Team": "***"}))
    _, key = w.new_key("read-only")
    equal(w.as_key(key).cues.get(cue.id).callback.headers, {"X-Team": "***"})


@scenario
def update_changes_only_what_is_given(w):
    cue = w.cue("before", payload={"a": 1}, description="old", on_failure={"email": False})
    changed = w.sdk.cues.update(cue.id, name="after", payload={"b": 2}, retry={"max_attempts": 1, "backoff_minutes": [1]})
    equal((changed.name, changed.payload, changed.description, changed.on_failure.email), ("after", {"b": 2}, "old", False))
    equal(changed.retry.max_attempts, 1)
    at = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(hours=1)
    once = w.sdk.cues.update(cue.id, at=at, description="new", on_failure={"pause": True})
    equal((once.schedule.type, once.schedule.cron, once.next_run), ("once", None, at))
    equal((once.name, once.description, once.on_failure.pause), ("after", "new", True))


@scenario
def pause_resume_delete(w):
    cue = w.cue("paused")
    paused = w.sdk.cues.pause(cue.id)
    equal((paused.status, paused.next_run), ("paused", None))
    resumed = w.sdk.cues.resume(cue.id)
    equal((resumed.status, resumed.next_run), ("active", cue.next_run))
    equal(w.sdk.cues.delete(cue.id), None)
    equal(refused(w.sdk.cues.get, cue.id), (404, "cue_not_found"))
    equal(refused(w.sdk.cues.delete, cue.id), (404, "cue_not_found"))


@scenario
def heartbeat_and_outcome(w):
    cue = w.cue("reported", payload={"task": "t"})
    run = w.claimed(cue)
    beat = w.sdk.executions.heartbeat(run)
    equal((beat["execution_id"], beat["acknowledged"]), (run, True))
    until = datetime.fromisoformat(beat["lease_extended_until"])
    assert timedelta(seconds=890) < until - datetime.now(timezone.utc) <= timedelta(seconds=900), until
    report = dict(
        success=True,
        result="42 rows",
        metadata={"took": 1.5},
        external_id="inv-1",
        result_url="https://example.com/inv/1",
        result_type="invoice",
        summary="one invoice",
        artifacts=[{"name": "inv.pdf"}],
    )
    answer = w.sdk.executions.report_outcome(run, **report)
    equal((answer["execution_id"], answer["outcome_recorded"], answer["outcome_state"]), (run, True, "reported_success"))
    equal(w.sdk.executions.report_outcome(run, **report)["outcome_recorded"], True)  # the same again
    equal(refused(w.sdk.executions.report_outcome, run, success=False), (409, "outcome_already_recorded"))
    equal(refused(w.sdk.executions.heartbeat, run), (409, "execution_not_claiming"))
    got = w.sdk.executions.get(run)
    equal((got["id"], got["cue_id"], got["status"], got["attempts"], got["claimed_by_worker"]), (run, cue.id, "success", 1, "sdk-worker"))
    equal({k: got["outcome"][k] for k in report}, report)
    after = w.sdk.cues.get(cue.id)
    equal(after.run_count, 1)
    assert after.last_run is not None


@scenario
def handle(w):
    cue = w.cue("handled")
    good, bad = w.claimed(cue), w.claimed(cue)
    with w.sdk.executions.handle(good, {"n": 7}) as work:
        work.result = f"did {work.payload['n']}"
        work.evidence = {"external_id": "x-7", "summary": "seven"}
    outcome = w.sdk.executions.get(good)["outcome"]
    equal((outcome["success"], outcome["result"], outcome["external_id"], outcome["summary"]), (True, "did 7", "x-7", "seven"))
    try:
        with w.sdk.executions.handle(bad):
            raise ValueError("no such table: " + "ö" * 3000)
    except ValueError:
        pass
    got = w.sdk.executions.get(bad)
    equal((got["status"], got["outcome"]["success"], len(got["outcome"]["error"])), ("failed", False, 2000))
    equal(got["error_message"], got["outcome"]["error"])


@scenario
def verification(w):
    done = w.claimed(w.cue("verified"))
    equal(refused(w.sdk.executions.mark_verification_pending, done), (409, "no_outcome"))
    equal(refused(w.sdk.executions.mark_verified, done), (409, "invalid_state"))
    w.sdk.executions.report_outcome(done, success=True)
    equal(w.sdk.executions.mark_verification_pending(done)["outcome_state"], "verification_pending")
    equal(w.sdk.executions.get(done)["outcome_state"], "verification_pending")
    verified = w.sdk.executions.mark_verified(done)
    equal((verified["execution_id"], verified["outcome_state"], verified["valid"]), (done, "verified_success", True))
    equal(refused(w.sdk.executions.mark_verified, done), (409, "invalid_state"))


@scenario
def executions_list(w):
    first, second = w.cue("first"), w.cue("second")
    good, bad, waiting = w.claimed(first), w.claimed(first), w.claimed(second)
    w.sdk.executions.report_outcome(good, success=True)
    w.sdk.executions.report_outcome(bad, success=False, error="broken")
    again = w.post(f"/v1/executions/{bad}/replay")["id"]

    def ids(**filters):
        page = w.sdk.executions.list(**filters)
        equal(page["total"], len(page["executions"]))
        return {e["id"] for e in page["executions"]}

    equal(ids(), {good, bad, waiting, again})
    equal(ids(cue_id=first.id), {good, bad, again})
    equal(ids(status="delivering"), {waiting})
    equal(ids(status="failed"), {bad})
    equal(ids(outcome_state="reported_success"), {good})
    equal(ids(triggered_by="replay"), {again})
    equal(ids(triggered_by="manual_fire", cue_id=second.id), {waiting})
    page = w.sdk.executions.list(limit=1, offset=1)
    equal((page["total"], page["limit"], page["offset"], page["has_more"], len(page["executions"])), (4, 1, 1, True, 1))
    equal(refused(w.sdk.executions.get, "00000000-0000-4000-8000-000000000000"), (404, "execution_not_found"))
    equal(refused(w.sdk.executions.get, "nonsense"), (404, "execution_not_found"))


@scenario
def bad_input(w):
    w.cue("taken")
    create = w.sdk.cues.create
    equal(refused(w.cue, "taken"), (409, "duplicate_cue_name"))
    equal(refused(create, name="c", cron="every day", transport="worker"), (400, "invalid_schedule"))
    equal(refused(create, name="c", cron="0 0 30 2 *", transport="worker"), (400, "invalid_schedule"))
    equal(refused(create, name="c", cron=YEARLY, timezone="Mars/Base", transport="worker"), (422, "invalid_timezone"))
    equal(refused(create, name="c", at="2020-01-01T00:00:00Z", transport="worker"), (400, "invalid_schedule"))
    equal(refused(create, name="c" * 256, cron=YEARLY, transport="worker"), (422, "validation_error"))
    equal(refused(create, name="c", cron=YEARLY, transport="pigeon"), (422, "validation_error"))
    equal(refused(create, name="c", cron=YEARLY, transport="worker", payload={"a": "\x00"}), (400, "invalid_payload"))
    equal(refused(create, name="c", cron=YEARLY, callback="https://169.254.169.254/hook"), (400, "invalid_callback_url"))
    equal(w.sdk.cues.list().total, 1)  # what was refused left nothing behind


@scenario
def scopes(w):
    cue = w.cue("scoped", payload={"task": "t"})
    _, worker = w.new_key("worker")
    reader_id, reader = w.new_key("read-only")
    run = w.post(f"/v1/cues/{cue.id}/fire")["id"]
    w.post(f"/v1/executions/{run}/claim", {"worker_id": "sdk-worker"}, key=worker)
    equal(refused(w.as_key(worker).cues.create, name="no", cron=YEARLY, transport="worker"), (403, "insufficient_scope"))
    equal(refused(w.as_key(worker).cues.delete, cue.id), (403, "insufficient_scope"))
    equal(refused(w.as_key(reader).executions.report_outcome, run, success=True), (403, "insufficient_scope"))
    equal(refused(w.as_key(reader).executions.mark_verified, run), (403, "insufficient_scope"))
    equal(w.as_key(reader).cues.get(cue.id).id, cue.id)
    w.as_key(worker).executions.heartbeat(run)
    equal(w.as_key(worker).executions.report_outcome(run, success=True)["outcome_state"], "reported_success")
    w.post(f"/v1/keys/{reader_id}/revoke")
    equal(refused(w.as_key(reader).cues.get, cue.id), (401, "key_revoked"))
    equal(refused(w.as_key(worker[:-1] + ("1" if worker[-1] == "0" else "0")).cues.list)[0], 401)
    equal(refused(w.as_key("cue_sk_" + "0" * 32).cues.list), (401, "invalid_api_key"))


@scenario
def rate_limit(w):
    made = w.post("/v1/keys", {"name": "slow", "scope": "read-only", "restrictions": {"rate_per_minute": 2}})
    slow = w.as_key(made["key"])
    slow.cues.list()
    slow.cues.list()
    try:
        slow.cues.list()
    except CueAPIError as error:
        equal((error.status_code, error.code), (429, "rate_limit_exceeded"))
        assert 1 <= error.retry_after <= 60, error.retry_after
    else:
        raise AssertionError("the third call within a minute passed")


class Receiver(HTTPServer):
    """Somebody who gets webhooks, and answers what the last argument says."""

    def __init__(self, answer=b""):
        self.got = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.append((dict(self.headers.items()), body))
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/hook"


def eventually(look):
    for _ in range(2000):
        if found := look():
            return found
        time.sleep(0.01)
    raise AssertionError("not within 20 seconds")


@scenario
def webhook(w):
    receiver = Receiver()
    payload = {"b": 1.0, "a": "\u00e9\U0001f600\n", "nested": {"z": [1, 2.5e-7, 10**20, None, True], "": {}}, "slash": "</script>"}
    cue = w.sdk.cues.create(name="hook", cron=YEARLY, callback=receiver.url, payload=payload)
    equal(cue.transport, "webhook")
    fired = w.post(f"/v1/cues/{cue.id}/fire")["id"]
    eventually(lambda: receiver.got)
    headers, body = receiver.got[0]
    secret = httpx.get(w.url + "/v1/auth/webhook-secret", headers={"Authorization": f"Bearer {w.key}"}).json()["webhook_secret"]
    signature, at = headers["X-CueAPI-Signature"], headers["X-CueAPI-Timestamp"]  # a plain dict: the spelling counts
    for form in (body, body.decode(), json.loads(body)):
        assert verify_webhook(payload=form, signature=signature, timestamp=at, secret=secret)
    assert not verify_webhook(payload=body + b" {}", signature=signature, timestamp=at, secret=secret)
    assert not verify_webhook(payload=body, signature=signature, timestamp=at, secret="whsec_other")
    equal((headers["X-CueAPI-Execution-Id"], headers["X-CueAPI-Cue-Id"], headers["X-CueAPI-Attempt"]), (fired, cue.id, "1"))
    execution = eventually(lambda: (e := w.sdk.executions.get(fired))["status"] == "success" and e)
    equal((execution["attempts"], execution["http_status"]), (1, 200))


@scenario
def webhook_reports(w):
    receiver = Receiver()
    cue = w.post("/v1/cues", {"name": "reported", "cron": YEARLY, "callback": {"url": receiver.url}, "delivery": {"outcome_deadline_seconds": 60}})
    fired = w.post(f"/v1/cues/{cue['id']}/fire")["id"]
    eventually(lambda: w.sdk.executions.get(fired)["status"] == "pending_outcome")
    _, worker = w.new_key("worker")
    equal(w.as_key(worker).executions.report_outcome(fired, success=True, result="fine")["outcome_state"], "reported_success")
    equal(w.sdk.executions.get(fired)["status"], "success")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        print("\n".join(scenarios))
    else:
        scenarios[sys.argv[1]](World(os.environ["UNSTUCK_URL"], os.environ["UNSTUCK_KEY"]))
