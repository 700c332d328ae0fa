#!/usr/bin/env python3
"""An independent verifier of the Enforcer's audit log: Python's standard library and nothing else.

    verify_log.py LOG_DIRECTORY PUBLIC_KEY [KEPT_CHECKPOINT]

Checks the checkpoint's signature (C2SP signed-note, Ed25519), every entry bundle, every tile (C2SP
tlog-tiles), the root, and every clear text against the commitment in its leaf. Prints `ok ORIGIN SIZE ROOT`
(and `from N` where the records before N were removed, as a record says), or `bad: …` with exit status 1. It follows no key handovers: give the key that signs now.
"""
import base64
import hashlib
import json
import pathlib
import sys

# --- Ed25519 (RFC 8032 section 5.1), verification only -------------------------------------------------
P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
I = pow(2, (P - 1) // 4, P)


def add(a, b):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(n, point):
    result = (0, 1, 1, 0)
    while n:
        if n & 1:
            result = add(result, point)
        point = add(point, point)
        n >>= 1
    return result


def point(encoded):
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        raise Bad("a point is out of range")
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * I % P
    if (x * x - xx) % P or (x == 0 and sign):
        raise Bad("a point is not on the curve")
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def signed(key, message, signature):
    if len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= L:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    left, right = times(s, BASE), add(point(signature[:32]), times(h, point(key)))
    same = lambda a, b: (left[a] * right[b] - right[a] * left[b]) % P == 0
    return same(0, 2) and same(1, 2)


# --- notes and checkpoints -----------------------------------------------------------------------------
class Bad(Exception):
    pass


def check(condition, why):
    if not condition:
        raise Bad(why)


def key_of(text):
    name, key_id, encoded = text.strip().split("+", 2)
    key = base64.b64decode(encoded, validate=True)
    check(key[:1] == b"\x01" and len(key) == 33, "not an Ed25519 key")
    check(hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8] == key_id, "the key's id is wrong")
    return name, key[1:]


def checkpoint(note, name, key):
    text, _, signatures = note.decode().rpartition("\n\n")
    text += "\n"
    lines = text.split("\n")
    check(len(lines) == 4 and lines[3] == "", "not a checkpoint")
    origin, size, root = lines[0], int(lines[1]), base64.b64decode(lines[2], validate=True)
    check(str(size) == lines[1] and len(root) == 32, "not a checkpoint")
    check(origin == name or origin.startswith(name + "/"), f"a log of somebody else: {origin}")
    key_id = hashlib.sha256(origin.encode() + b"\n\x01" + key).digest()[:4]
    valid = 0
    for line in signatures.removesuffix("\n").split("\n"):
        check(line.startswith("\u2014 "), "a signature line is malformed")
        signer, encoded = line[2:].split(" ")
        blob = base64.b64decode(encoded, validate=True)
        if (signer, blob[:4]) == (origin, key_id):
            check(signed(key, text.encode(), blob[4:]), "the signature is wrong")
            valid += 1
    check(valid == 1, "not signed by this key")
    return origin, size, root


# --- the tree ------------------------------------------------------------------------------------------
def leaf_hash(leaf):
    return hashlib.sha256(b"\0" + leaf).digest()


def root_of(hashes):
    if len(hashes) < 2:
        return hashes[0] if hashes else hashlib.sha256().digest()
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root_of(hashes[:half]) + root_of(hashes[half:])).digest()


def name_of(number):
    name = f"{number % 1000:03}"
    while number >= 1000:
        number //= 1000
        name = f"x{number % 1000:03}/{name}"
    return name


def tiles(size, level=0):
    """Number and width of each tile of a level."""
    nodes = size >> 8 * level
    for number in range((nodes + 255) // 256):
        yield number, min(256, nodes - 256 * number)


def read(log, kind, number, width):
    suffix = "" if width == 256 else f".p/{width}"
    path = log / f"{kind}/{name_of(number)}{suffix}"
    check(path.is_file(), f"{path} is missing")
    return path.read_bytes()


def split(bundle, length_bytes, width, what):
    entries, at = [], 0
    while at < len(bundle):
        end = at + length_bytes + int.from_bytes(bundle[at : at + length_bytes], "big")
        check(end <= len(bundle), f"{what} is cut")
        entries.append(bundle[at + length_bytes : end])
        at = end
    check(len(entries) == width, f"{what} has {len(entries)} entries, not {width}")
    return entries


# --- leaves --------------------------------------------------------------------------------------------
def canonical(value):
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()


def sealed_places(record):
    for key, value in record.items():
        if isinstance(value, dict):
            if set(value) == {"sealed"}:
                yield "" if key == "record" else f"/{key}", value["sealed"]
            elif key == "object":
                for inner, deep in value.items():
                    if isinstance(deep, dict) and set(deep) == {"sealed"}:
                        yield f"/object/{inner}", deep["sealed"]


def check_record(index, leaf, clear):
    record = json.loads(leaf)
    check(canonical(record) == leaf, f"record {index}: the leaf is not canonical")
    check(record.get("leaf") == 1, f"record {index}: unknown version")
    check(record.get("seq") == index, f"record {index}: says that it is another")
    values = json.loads(clear) if clear else {}
    check(not clear or canonical(values) == clear, f"record {index}: the clear part is not canonical")
    places = dict(sealed_places(record))
    check(set(places) == set(values), f"record {index}: the clear part has not what is sealed")
    for pointer, (salt, value) in values.items():
        salt = base64.b64decode(salt, validate=True)
        text = b"enforcer/sealed/v1\n" + salt + pointer.encode() + b"\n" + canonical(value)
        commitment = base64.b64encode(hashlib.sha256(text).digest()).decode()
        check(len(salt) == 16 and commitment == places[pointer], f"record {index}: {pointer} was changed")


# --- the log -------------------------------------------------------------------------------------------
def removed(log, size):
    """Where the first records were removed: up to which one, and the index of the record that says so."""
    if not (log / "truncation").exists():
        return 0, None
    said = json.loads((log / "truncation").read_bytes())
    to, record = said["to"], said["record"]
    check(set(said) == {"to", "record"} and 0 < to <= record < size and to % 256 == 0, "truncation makes no sense")
    return to, record


def verify(log, public, kept):
    name, key = key_of(public)
    origin, size, root = checkpoint((log / "checkpoint").read_bytes(), name, key)
    first, record = removed(log, size)
    hashes = []
    for number, width in tiles(size):
        if 256 * number < first:
            # Only the hashes are left; that they are the signed ones is what the root shows below.
            tile = read(log, "tile/0", number, width)
            check(len(tile) == 32 * width, f"tile 0/{number} has a wrong length")
            hashes += [tile[at : at + 32] for at in range(0, len(tile), 32)]
            continue
        leaves = split(read(log, "tile/entries", number, width), 2, width, f"bundle {number}")
        clears = split(read(log, "clear", number, width), 4, width, f"clear bundle {number}")
        for leaf, clear in zip(leaves, clears):
            check_record(len(hashes), leaf, clear)
            if len(hashes) == record:
                said = json.loads(leaf)
                gone = (said.get("kind"), said.get("to"), said.get("root"))
                check(gone == ("truncated", first, root_of(hashes[:first]).hex()), "no record says what was removed")
            hashes.append(leaf_hash(leaf))
    check(root_of(hashes) == root, "the records do not have the root that was signed")
    if kept:
        kept_origin, kept_size, kept_root = checkpoint(kept.read_bytes(), name, key)
        check(kept_origin == origin and kept_size <= size, "the kept checkpoint has more records or another name")
        check(root_of(hashes[:kept_size]) == kept_root, "the kept checkpoint is of another history")
    level = 0
    while hashes:
        for number, width in tiles(size, level):
            tile = b"".join(hashes[256 * number : 256 * number + width])
            check(read(log, f"tile/{level}", number, width) == tile, f"tile {level}/{number} was changed")
        hashes = [root_of(hashes[at : at + 256]) for at in range(0, len(hashes) - 255, 256)]
        level += 1
    return f"{origin} {size} {root.hex()}" + (f" from {first}" if first else "")


def main():
    log, public = pathlib.Path(sys.argv[1]), sys.argv[2]
    kept = pathlib.Path(sys.argv[3]) if len(sys.argv) > 3 else None
    try:
        print("ok", verify(log, public, kept))
    except (Bad, ValueError, KeyError, TypeError, OSError, AttributeError) as error:
        print("bad:", error)
        sys.exit(1)


if __name__ == "__main__":
    main()
