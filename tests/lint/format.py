#!/usr/bin/env python3
"""clang-format, but for what version 14 cannot leave alone and people align by hand: tables, short enums, several case
labels in a line, chains of ?:, and the room before a comment at a line's end.

usage: format.py check|write SRCDIR|FILE...      check: exit 1 with the places; write: puts them right
"""
import difflib
import os
import re
import shutil
import subprocess
import sys

TABLE_LINE = re.compile(r"""\s*(
	(static\s|const\s|typedef\s)*(enum|struct|union)\b.*\{.*    # a short enum, or the head of a table
	| .*=\s*\{.*                                               # a table begins
	| [{\[}"].*                                                # a row of it
	| [A-Z][A-Z0-9_]*(\s=\s[^,]*)?,.*                           # several names of an enum
	| .*\?.*:.*\?.*:.*                                         # a chain of conditions in one line
	| (case\s.*:\s+|default:\s+)(case|default|return|break).*  # several labels, or a label and its one answer
	| (static\s)?(inline\s)?[\w\s*]+\(.*\)\s*\{.*\}            # a function of one line
)$""", re.X)


def loose(line):
    """The line without what is aligned by hand: the room before a comment or a backslash at its end."""
    return re.sub(r"\s+(/\*.*\*/|\\)$", r" \1", line.rstrip())


def is_left_alone(old, new):
    if [loose(line) for line in old] == [loose(line) for line in new]:
        return True
    if "".join(re.sub(r"\s", "", x) for x in old) != "".join(re.sub(r"\s", "", x) for x in new):
        return False
    # Only breaks and blanks differ. Lines that begin as a table's do, each with tabs in front.
    return bool(old) and all(TABLE_LINE.match(line) and not line.startswith(" ") for line in old)


def find_formatter():
    for name in ("clang-format-14", "clang-format"):
        if shutil.which(name) and " version 14." in subprocess.run([name, "--version"], capture_output=True, text=True).stdout:
            return name
    sys.exit("clang-format 14 is missing (others format otherwise): apt-get install clang-format-14")


def differences(path):
    """(formatted lines with what is left alone, [(line, text)] of what is to be changed)"""
    with open(path, encoding="utf-8") as f:
        old = f.read().split("\n")
    new = subprocess.run([FORMATTER, "--style=file", path], check=True, capture_output=True, text=True).stdout.split("\n")
    out, places = [], []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal" or is_left_alone(old[a:b], new[c:d]):
            out += old[a:b]
            continue
        out += new[c:d]
        places.append((a + 1, "\n".join(["-" + x for x in old[a:b]] + ["+" + x for x in new[c:d]])))
    return out, places


def sources(top):
    """The C files of src and tests that people write."""
    for folder in ("src", "tests"):
        for where, _, names in os.walk(os.path.join(top, folder)):
            for name in sorted(names):
                path = os.path.join(where, name)
                if name.endswith((".c", ".h")):
                    with open(path, encoding="utf-8") as f:
                        if "Made by tests/tools/" not in f.read(400):
                            yield path


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in ("check", "write"):
        sys.exit(__doc__)
    wrong = 0
    files = [f for a in sys.argv[2:] for f in (sources(a) if os.path.isdir(a) else [a])]
    for path in files:
        out, places = differences(path)
        wrong += len(places)
        if sys.argv[1] == "check":
            for n, text in places:
                print(f"{path}:{n}: not as clang-format has it\n{text}", file=sys.stderr)
        elif places:
            with open(path, "w", encoding="utf-8") as f:
                f.write("\n".join(out))
    sys.exit(1 if wrong and sys.argv[1] == "check" else 0)


FORMATTER = find_formatter()
main()
