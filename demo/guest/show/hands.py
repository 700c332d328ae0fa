"""Talking to the two agents: MCP over stdio, and one JSON request per line for the coding agent."""

import json
import re
import subprocess
import tempfile

TOLD = {"Operation not permitted": "EPERM", "Permission denied": "EACCES", "Read-only file system": "EROFS"}


class Answer:
    """What came back: an errno's name or "ok", and text."""

    def __init__(self, kernel, text, code=0):
        self.kernel = kernel
        self.text = text
        self.exit = code


class Process:
    """A program that answers lines with lines."""

    def __init__(self, command):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True, bufsize=1
        )

    def send(self, message):
        try:
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise self.gone() from None

    def receive(self):
        line = self.process.stdout.readline()
        if not line:
            raise self.gone()
        return json.loads(line)

    def gone(self):
        status = self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip()
        return RuntimeError(f"{' '.join(self.process.args)} ended with {status}: {said or 'it said nothing'}")

    def close(self):
        """Its status once its input has ended."""
        self.process.stdin.close()
        status = self.process.wait(60)
        self.errors.close()
        return status


class Mcp(Process):
    """A client of a Model Context Protocol server (JSON-RPC 2.0 over stdio)."""

    last = 0

    def request(self, method, params):
        self.last += 1
        self.send({"jsonrpc": "2.0", "id": self.last, "method": method, "params": params})
        while True:
            message = self.receive()
            if message.get("id") == self.last and "method" not in message:
                break
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error'].get('message')}")
        return message["result"]

    def initialize(self):
        client = {"name": "enforcer-demo", "version": "1"}
        hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}
        result = self.request("initialize", hello)
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return result

    def do(self, tool, arguments):
        result = self.request("tools/call", {"name": tool, "arguments": arguments})
        text = "\n".join(part.get("text", "") for part in result.get("content", []))
        if not result.get("isError"):
            return Answer("ok", text)
        # Node.js names the error first: "EPERM: operation not permitted, open '…'".
        named = re.match(r"(E[A-Z]+): ", text)
        return Answer(named[1] if named else "error", text)


class Tools(Process):
    """The coding agent's tools (agent/tools.py)."""

    def do(self, tool, text):
        self.send({"tool": tool, "input": text})
        answer = self.receive()
        said, code = answer["output"], answer["exit"]
        kernel = answer.get("errno")
        if kernel is None and code != 0:
            kernel = next((name for words, name in TOLD.items() if words in said), None)
        return Answer(kernel or "ok", said, code)
