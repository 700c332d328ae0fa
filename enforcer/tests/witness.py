#!/usr/bin/env python3
"""A witness for tests (C2SP tlog-witness, tlog-cosignature): Python's standard library and the verifier beside it.

    witness.py NAME LOG_KEY BEHAVIOUR

Prints its public key and its port. BEHAVIOUR: `good`; `refuse` answers 403; `lie` signs with another key than it says;
`slow` answers after a minute; `amnesia` says that it has seen a size that no log has.
"""
import base64
import hashlib
import http.server
import sys
import time

from verify_log import BASE, L, P, checkpoint, key_of, times

name, log_key, behaviour = sys.argv[1:]


def encoded(point):
    x, y, z, _ = point
    x, y = x * pow(z, P - 2, P) % P, y * pow(z, P - 2, P) % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


class Key:
    """Ed25519, RFC 8032 section 5.1."""

    def __init__(self, seed):
        digest = hashlib.sha512(seed).digest()
        self.scalar = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | (1 << 254)
        self.prefix = digest[32:]
        self.public = encoded(times(self.scalar, BASE))

    def sign(self, message):
        r = int.from_bytes(hashlib.sha512(self.prefix + message).digest(), "little") % L
        point = encoded(times(r, BASE))
        h = int.from_bytes(hashlib.sha512(point + self.public + message).digest(), "little") % L
        return point + ((r + h * self.scalar) % L).to_bytes(32, "little")


key = Key(hashlib.sha256(name.encode()).digest())
typed = b"\x04" + key.public
key_id = hashlib.sha256(name.encode() + b"\n" + typed).digest()[:4]
signer = Key(b"another") if behaviour == "lie" else key
seen = {}


def node(left, right):
    return hashlib.sha256(b"\x01" + left + right).digest()


def consistent(proof, old, old_root, size, root):
    """RFC 9162 section 2.1.4.2, for 0 < old < size."""
    proof = list(proof)
    if old & (old - 1) == 0:
        proof.insert(0, old_root)
    if not proof:
        return False
    fn, sn = old - 1, size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = proof[0]
    for c in proof[1:]:
        if sn == 0:
            return False
        if fn & 1 or fn == sn:
            fr, sr = node(c, fr), node(c, sr)
            while fn & 1 == 0 and fn:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    return sn == 0 and fr == old_root and sr == root


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if behaviour == "slow":
            time.sleep(60)
        if self.path != "/add-checkpoint" or behaviour == "refuse":
            return self.answer(403)
        if behaviour == "amnesia":
            return self.answer(409, b"99999999\n", "text/x.tlog.size")
        head, _, note = body.partition(b"\n\n")
        lines = head.decode().split("\n")
        old = int(lines[0].removeprefix("old "))
        proof = [base64.b64decode(line, validate=True) for line in lines[1:]]
        origin, size, root = checkpoint(note, *key_of(log_key))
        known, known_root = seen.get(origin, (0, b""))
        if old != known:
            return self.answer(409, b"%d\n" % known, "text/x.tlog.size")
        if size < known or (size == known and known and root != known_root):
            return self.answer(409, b"%d\n" % known, "text/x.tlog.size")
        if 0 < known < size and not consistent(proof, known, known_root, size, root):
            return self.answer(422)
        if known in (0, size) and proof:
            return self.answer(422)
        seen[origin] = size, root
        now = int(time.time())
        text = note.decode().rpartition("\n\n")[0] + "\n"
        signature = signer.sign(f"cosignature/v1\ntime {now}\n{text}".encode())
        blob = base64.b64encode(key_id + now.to_bytes(8, "big") + signature).decode()
        self.answer(200, f"\u2014 {name} {blob}\n".encode())

    def answer(self, status, body=b"", kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"{name}+{key_id.hex()}+{base64.b64encode(typed).decode()}")
print(server.server_port, flush=True)
server.serve_forever()
