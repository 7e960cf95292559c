"""How test programs talk: what they print, read into cases."""

import re
from dataclasses import dataclass, field


@dataclass
class Case:
    name: str
    result: str = "running"  # passed, failed, skipped, running
    output: list = field(default_factory=list)
    reason: str = ""


class Subunit:
    """Reads what cmocka prints with CMOCKA_MESSAGE_OUTPUT=subunit, mixed with the program's own output."""

    START = re.compile(r"^test: (\S+)$")
    # The program's own output may stand before it on the line, when it did not end with a newline.
    END = re.compile(r"(success|failure|skip|error): (\S+)( \[)?$")
    RESULT = {"success": "passed", "failure": "failed", "error": "failed", "skip": "skipped"}

    def __init__(self):
        self.cases = []
        self.outside = []  # output that belongs to no case
        self.current = None
        self.in_details = False

    def line(self, text):
        start = self.START.match(text)
        if start and not self.in_details:
            self.current = Case(start[1])
            self.cases.append(self.current)
            return
        if self.in_details:
            if text == "]":
                self.in_details = False
                self.current = None
            else:
                self.current.output.append(text)
            return
        end = self.END.search(text)
        if end and self.current and end[2] == self.current.name:
            if end.start() > 0:
                self.current.output.append(text[: end.start()])
            self.current.result = self.RESULT[end[1]]
            if self.current.result == "skipped":
                said = [line for line in self.current.output if line.strip()]
                self.current.reason = said[-1].strip() if said else "no reason given"
            if end[3]:
                self.in_details = True
            else:
                self.current = None
            return
        (self.current.output if self.current else self.outside).append(text)

    def finish(self):
        """What is wrong with the conversation as a whole, or None."""
        return None


class Tap:
    """Reads TAP. Output before a result line belongs to that result, as do the # lines after it."""

    RESULT = re.compile(r"^(not )?ok\b\s*(\d+)?\s*(?:-\s*)?(.*?)(?:\s*#\s*(SKIP|TODO)\b:?\s*(.*))?$", re.I)
    PLAN = re.compile(r"^1\.\.(\d+)\s*(?:#\s*SKIP\S*\s*(.*))?$", re.I)

    def __init__(self):
        self.cases = []
        self.outside = []
        self.current = None
        self.plan = None
        self.pending = []

    def line(self, text):
        plan = self.PLAN.match(text)
        if plan:
            self.plan = int(plan[1])
            if self.plan == 0 and plan[2]:
                self.cases.append(Case("all", "skipped", reason=plan[2]))
                self.plan = 1
            return
        if text.startswith("Bail out!"):
            self.cases.append(Case("bail-out", "failed", self.pending + [text]))
            self.pending = []
            return
        result = self.RESULT.match(text)
        if result:
            skipped = (result[4] or "").upper() == "SKIP"
            state = "failed" if result[1] else "skipped" if skipped else "passed"
            self.cases.append(Case(result[3] or f"case {result[2]}", state, self.pending, result[5] or ""))
            if skipped and not result[5]:
                self.cases[-1].reason = "no reason given"
            self.pending = []
            return
        if text.startswith("#") and self.cases and self.cases[-1].result == "failed" and not self.pending:
            self.cases[-1].output.append(text)
        else:
            self.pending.append(text)

    def finish(self):
        self.outside = self.pending
        if self.plan is None:
            return "it ended without a plan (1..N)"
        if self.plan != len(self.cases):
            return f"it planned {self.plan} tests and reported {len(self.cases)}"
        return None
