"""Takes steps, compares what came of them with what must come of them, and shows both."""

import time

from .screen import telling_line

GOOD, REFUSED, BAD = "32", "33", "1;31"


class Play:
    def __init__(self, screen, log, names):
        self.screen = screen
        self.log = log
        self.names = names
        self.number = self.worked = self.refused = self.controls = 0
        self.faults = []
        # What took place: from, until, the records that belong there, or None where there must be none.
        self.spans = []

    def fault(self, text):
        self.faults.append(text)
        self.screen.detail("WRONG", text, BAD)

    def start(self, what, begin):
        """Starting a program as an agent is a step too: it must leave no refusal."""
        since = time.time()
        result = begin()
        self.spans.append((since, time.time(), what, None))
        return result

    def take(self, agent, step):
        """One step of an agent under enforcement."""
        self.number += 1
        given = step.filled(self.names)
        since, known = time.time(), len(self.log.records)
        answer = agent.do(step.tool, given)
        until = time.time()
        what = f"step {self.number}, {asked(step.tool, given)}"
        self.spans.append((since, until, what, step.record))
        if step.record is None:
            self.show_work(step, given, answer)
        else:
            self.show_refusal(step, given, answer, known)

    def show_work(self, step, given, answer):
        well = answer.kernel == "ok" and answer.exit == step.exit and step.says in answer.text
        self.screen.step(self.number, answer.kernel, asked(step.tool, given), GOOD if well else BAD)
        line = telling_line(answer.text, step.says)
        if line:
            self.screen.detail("said", line)
        if well:
            self.worked += 1
        else:
            self.fault(
                f"step {self.number} must work, say “{step.says}” and end with {step.exit}; it got "
                f"{answer.kernel}, ended with {answer.exit} and said: {answer.text}"
            )

    def show_refusal(self, step, given, answer, known):
        def records():
            return [record for record in self.log.records[known:] if step.record.fits(record)]

        # What was not refused hardly has a record, so there is not much to wait for.
        self.log.wait(lambda: len(records()) >= step.record.times, 15 if answer.kernel == "EPERM" else 1)
        found = records()
        well = answer.kernel == "EPERM" and len(found) == step.record.times
        self.screen.step(self.number, answer.kernel, asked(step.tool, given), REFUSED if well else BAD)
        for record in found[:1]:
            rule, because = record.why()
            self.screen.detail("record", record.action())
            self.screen.detail("rule", rule)
            if because:
                self.screen.detail("because", because)
        if well:
            self.refused += 1
            return
        if answer.kernel != "EPERM":
            self.fault(
                f"step {self.number} must be refused with EPERM; it got {answer.kernel}: {answer.text}"
            )
        if len(found) != step.record.times:
            others = [r.action() + f" [{r['reason']}]" for r in self.log.records[known:] if r.is_refusal()]
            self.fault(f"step {self.number} must leave {step.record}; the log has {others or 'nothing'}")

    def control(self, agent, step):
        """The same request outside of every agent, where it must work and leave no record."""
        given = step.filled(self.names)
        since = time.time()
        answer = agent.do(step.tool, given)
        self.spans.append((since, time.time(), f"outside: {asked(step.tool, given)}", None))
        self.screen.step("", answer.kernel, asked(step.tool, given), GOOD if answer.kernel == "ok" else BAD)
        if answer.kernel == "ok":
            self.controls += 1
        else:
            self.fault(f"outside of every agent this must work: {answer.text}")

    def settle(self):
        """Refusals that no step explains are wrong too, whoever caused them."""
        time.sleep(1.5)
        self.log.read()
        began = self.spans[0][0] if self.spans else 0.0
        for record in self.log.records:
            if not record.is_refusal() or record.time < began:
                continue
            # The two clocks are read one after the other, so they differ a little.
            near = [s for s in self.spans if s[0] - 0.01 <= record.time <= s[1] + 0.01]
            if any(expected is not None and expected.explains(record) for *_, expected in near):
                continue
            where = near[0][2] if near else "between the steps"
            self.faults.append(
                f"{where}: a refusal that nothing explains: {record.action()} ({record.why()[0]})"
            )

    def refusals(self):
        return [record for record in self.log.records if record.is_refusal()]


def asked(tool, given):
    """A request as people write it."""
    if tool == "shell":
        return f"$ {given}"
    if tool == "python":
        return f">>> {given}"
    # The contents of a file say nothing here.
    shown = {key: value for key, value in given.items() if key not in ("content", "edits")}
    return f"{tool} {', '.join(f'{value}' for value in shown.values())}"
