"""The Enforcer's own log: JSON lines, read while they are written."""

import datetime
import json
import re
import time

LOG = "/var/lib/enforcer/audit/events.jsonl"


class Log:
    """Follows the log from its present end."""

    def __init__(self):
        self.file = open(LOG, "rb")
        self.file.seek(0, 2)
        self.rest = b""
        self.records = []

    def read(self):
        self.rest += self.file.read()
        *lines, self.rest = self.rest.split(b"\n")
        for line in lines:
            text = line.decode()
            self.records.append(Record(text, json.loads(text)))

    def wait(self, enough, seconds):
        """Reads until `enough()` says so, or for some time."""
        end = time.monotonic() + seconds
        while True:
            self.read()
            if enough() or time.monotonic() > end:
                return
            time.sleep(0.02)


class Record:
    def __init__(self, text, value):
        self.text = text
        self.value = value
        self.time = seconds(value["time"])

    def __getitem__(self, key):
        return self.value.get(key)

    def is_refusal(self):
        """Whether an agent was refused something; the daemon's own canary, refused for a proof, is none."""
        agents = self["agent"] not in (None, "enforcer-canary")
        return self["kind"] == "decision" and self["verdict"] == "deny" and agents

    def object(self):
        thing = self["object"] or {}
        if "path" in thing:
            return thing["path"]
        if "address" in thing:
            return f"{thing['address']}:{thing['port']}/{thing['protocol']}"
        return thing.get("family") or ""

    def action(self):
        """The operation, what it needed, and on what."""
        parts = [self["operation"] or "?"]
        if self["access"] and self["access"] != parts:
            parts.append(f"({'+'.join(self['access'])})")
        parts.append(self.object())
        if self["argument"] is not None:
            parts.append(str(self["argument"]))
        return " ".join(part for part in parts if part)

    def why(self):
        """What decided, and the policy's own words on it."""
        reasons = {
            "floor": "the floor: refused to every agent unless its policy names it",
            "gains-rights": "the new name would give rights that the old one does not",
            "moves-rules": "other rules hold below the new name",
            "unknown-object": "an object without a name, so no rule can allow it",
        }
        if self["reason"] != "rule":
            return reasons.get(self["reason"], self["reason"]), None
        rules = self["rule"] if isinstance(self["rule"], list) else []
        denying = [rule for rule in rules if rule["text"].startswith("deny ")]
        if not denying:
            return "no rule allows it", None
        # "deny OPERATIONS PATHS NUMBER at PLACE": the number and the place are enough to find the rest.
        return re.sub(r"^deny .* (#[0-9]+ at )", r"deny, rule \1", denying[0]["text"]), denying[0]["because"]


class Expected:
    """The record that a refusal must leave."""

    def __init__(self, operation, thing=".*", reason="rule", because=None, times=1, beside=None):
        self.operations = operation.split("|")
        self.thing = re.compile(thing)
        self.reason = reason
        self.because = because
        self.times = times
        # An operation whose refusal by the floor may be recorded too.
        self.beside = beside

    def fits(self, record):
        return (
            record.is_refusal()
            and record["operation"] in self.operations
            and record["error"] == "EPERM"
            and record["reason"] == self.reason
            and self.thing.fullmatch(record.object()) is not None
            and (self.because is None or record.why()[1] == self.because)
        )

    def explains(self, record):
        return self.fits(record) or (record["operation"] == self.beside and record["reason"] == "floor")

    def __str__(self):
        return f"{self.times} × {'|'.join(self.operations)} {self.thing.pattern} ({self.reason})"


def seconds(text):
    """RFC 3339 with a fraction, as seconds since 1970."""
    whole, fraction = text.rstrip("Z").split(".")
    moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp() + float(f"0.{fraction}")
