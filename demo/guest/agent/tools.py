"""The coding agent's hands: runs what a model asks for, one request and one answer per line.

Request: {"tool": "shell" or "python", "input": TEXT}. Answer: {"output": TEXT, "exit": NUMBER}, with
"errno": NAME where a Python call failed in the kernel. It is a plain program: nothing in it knows of the
Enforcer, and started by hand it does whatever it is asked.
"""

import contextlib
import ctypes
import errno
import io
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import urllib.request


class Libc:
    """C functions whose failure is an OSError."""

    def __init__(self):
        self._library = ctypes.CDLL(None, use_errno=True)

    def __getattr__(self, name):
        function = getattr(self._library, name)
        function.restype = ctypes.c_long

        def call(*arguments):
            ctypes.set_errno(0)
            result = function(*(a.encode() if isinstance(a, str) else a for a in arguments))
            if result == -1:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), name)
            return result

        return call


def read_memory(pid):
    """Reads a few bytes of another process, as a debugger does."""
    buffer = ctypes.create_string_buffer(8)
    here = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
    there = (ctypes.c_void_p * 2)(0x1000, 8)
    number, one, none = ctypes.c_long(pid), ctypes.c_ulong(1), ctypes.c_ulong(0)
    return libc.process_vm_readv(number, here, one, there, one, none)


libc = Libc()
NAMES = {
    "os": os,
    "mmap": mmap,
    "signal": signal,
    "socket": socket,
    "urllib": urllib,
    "libc": libc,
    "read_memory": read_memory,
    # include/uapi/linux/{sched,ptrace,bpf}.h and the table of system calls, x86_64
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWNS": 0x20000,
    "PTRACE_ATTACH": 16,
    "SYS_bpf": 321,
    "SYS_io_uring_setup": 425,
    "BPF_PROG_GET_NEXT_ID": 11,
    "zeros": ctypes.create_string_buffer(128),
}


def shell(text):
    done = subprocess.run(
        ["bash", "-c", text], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=120
    )
    return {"output": done.stdout + done.stderr, "exit": done.returncode}


def python(text):
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            try:
                value = eval(text, NAMES)
            except SyntaxError:
                value = exec(text, NAMES)
        shown = "" if value is None else repr(value)
        return {"output": printed.getvalue() + shown, "exit": 0}
    except Exception as error:
        # urllib wraps what the kernel said.
        cause = getattr(error, "reason", error)
        number = getattr(cause, "errno", None)
        return {"output": str(cause), "exit": 1, "errno": errno.errorcode.get(number)}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"shell": shell, "python": python}[request["tool"]](request["input"])
        print(json.dumps(answer), flush=True)


main()
