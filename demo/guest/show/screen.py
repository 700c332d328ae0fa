"""What people see: at most 100 columns, colours only where they are asked for."""

import shlex
import textwrap

WIDTH = 100


class Screen:
    def __init__(self, colours):
        self.colours = colours

    def paint(self, text, code):
        return f"\033[{code}m{text}\033[0m" if self.colours else text

    def line(self, text="", code=""):
        text = plain(text)
        if len(text) > WIDTH:
            text = text[: WIDTH - 1] + "…"
        print(self.paint(text, code) if code else text, flush=True)

    def heading(self, text):
        self.line()
        self.line(f"── {text} ".ljust(WIDTH, "─"), "1")

    def prose(self, text):
        for line in textwrap.wrap(" ".join(text.split()), WIDTH - 3):
            self.line(f"   {line}")

    def command(self, words):
        lines = textwrap.wrap(shlex.join(words), WIDTH - 4, break_on_hyphens=False)
        for index, line in enumerate(lines):
            more = " \\" if index + 1 < len(lines) else ""
            self.line(f"{'  ' if index else '$ '}{line}{more}", "1")

    def step(self, number, answer, asked, code):
        """One step: its number, what the kernel answered, what was asked for."""
        asked = textwrap.wrap(plain(asked), WIDTH - 15, break_on_hyphens=False) or [""]
        print(f"{number:>4}  {self.paint(f'{answer:<8}', code)} {asked[0]}", flush=True)
        for more in asked[1:]:
            self.line(" " * 15 + more)

    def detail(self, name, text, code=""):
        head, indent = f"               {name:<7} ", " " * 23
        for line in textwrap.wrap(plain(text), WIDTH - len(indent), break_on_hyphens=False) or [""]:
            self.line(head + line, code)
            head = indent

    def raw(self, text):
        """A record as it stands in the log, folded so that nothing of it is cut."""
        text = plain(text)
        for start in range(0, len(text), WIDTH - 3):
            self.line("   " + text[start : start + WIDTH - 3])


def plain(text):
    """No control characters: parts of what is shown come from programs that are not trusted."""
    return "".join(c if c.isprintable() else " " for c in text)


def telling_line(text, says):
    """The line of an answer that says what was expected, else the first."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if says and says in line), lines[0] if lines else "")
