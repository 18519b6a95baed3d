#!/usr/bin/env python3
"""Checks what `portal-audit proof export` wrote, with nothing of portal-audit's: leaves, roots and removals.

    verify.py EXPORT     exit code 0: it holds, 1: it does not, and each line says where

Signatures are not looked at: check the notes with any tool for C2SP signed notes.
"""
import base64, hashlib, json, struct, sys, uuid

faults = []


def fault(tree, seq, what):
    faults.append(f"{tree} {seq}: {what}")


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def leaf(salt, row):
    row = [uuid.UUID(row[0]).bytes, struct.pack(">q", row[1])] + row[2:]
    row = [bytes([c]) if isinstance(c, bool) else c.encode() if isinstance(c, str) else c for c in row]
    columns = (struct.pack(">i", -1) if c is None else struct.pack(">i", len(c)) + c for c in row)
    return sha256(b"\0", salt, *columns)


def root(peaks):
    """RFC 6962, section 2.1: peaks are (leaves, hash) of the full subtrees, largest first."""
    node = peaks[-1][1] if peaks else sha256()
    for _, left in reversed(peaks[:-1]):
        node = sha256(b"\1", left, node)
    return node


def pieces(text, size):
    data = bytes.fromhex(text)
    return [data[i : i + size] for i in range(0, len(data), size)]


def main(path):
    heads, sealed, names, told, lists, sizes = {}, [], set(), {}, {}, {}
    tree, size, peaks, gone = None, 0, [], {}
    is_ended = False
    for line in map(json.loads, open(path, encoding="utf-8")):
        kind = line["kind"]
        is_ended = kind == "end"
        if kind == "checkpoint":
            for text in line["note"].split("\n\n")[0].splitlines()[4:]:
                _, count, head, name = text.split(" ", 3)
                heads.setdefault(json.loads(name), []).append((int(count), base64.b64decode(head)))
        elif kind == "tree":
            tree, size, peaks, gone = line["tree"], 0, [], {}
            sizes[tree] = (0, line["size"])
        elif kind == "removed":
            places = ",".join(map(str, line["places"]))
            text = f"{tree} {line['first']} {places} {line['leaves'] or ''}\n"
            lists.setdefault(line["event_uuid"], hashlib.sha256()).update(text.encode())
            now = pieces(line["leaves"], 32) if line["leaves"] else [None] * len(line["places"])
            gone.update({line["first"] + place: own for place, own in zip(line["places"], now)})
        elif kind == "leaves":
            if line["first"] != size:
                fault(tree, size, "leaves are missing")
            entries = zip(pieces(line["uuids"], 16), pieces(line["salts"], 16), pieces(line["leaves"], 32), line["rows"])
            for name, salt, own, row in entries:
                sealed.append(name)
                if row is None and gone.get(size, b"") is not None:
                    fault(tree, size, "the row is gone")
                elif row and leaf(salt, row) != own and leaf(bytes(16), row) != gone.get(size):
                    fault(tree, size, "the row was edited")
                elif row and tree == ".own" and row[2] in ("retention_applied", "user_erased"):
                    told[row[0]] = json.loads(row[9]).get("digest")
                if row is None:
                    sealed.pop()
                peaks.append((1, own))
                while len(peaks) > 1 and peaks[-1][0] == peaks[-2][0]:
                    right, left = peaks.pop(), peaks.pop()
                    peaks.append((2 * left[0], sha256(b"\1", left[1], right[1])))
                size += 1
                if any(count == size and head != root(peaks) for count, head in heads.get(tree, [])):
                    fault(tree, size, "the leaves are not those of a checkpoint")
            sizes[tree] = (size, sizes[tree][1])
        elif kind == "names":
            names.update(pieces(line["uuids"], 16))
    for tree, own in heads.items():
        size, stored = sizes.get(tree, (0, None))
        if max(count for count, _ in own) > size or stored not in (None, size):
            fault(tree, size, "leaves are gone from the end")
    for event, digest in lists.items():
        if told.get(event) != digest.hexdigest():
            fault(".own", event, "the list of what was removed is not the one that was recorded")
    if len(sealed) != len(set(sealed)) or set(sealed) != names or not is_ended:
        fault("events", "", "a row is in no tree, an event is there twice, or the file was cut off")
    print("\n".join(faults) or f"{len(sealed)} rows hold")
    return 1 if faults else 0


sys.exit(main(sys.argv[1]))
