#!/usr/bin/env python3
"""Checks what the compiler does not: who includes whom, what is not called, that nothing is forgotten.

usage: lint.py SRCDIR          check the tree; exit 1 with the findings
       lint.py --ids SRCDIR    every id of an error or a check that the code knows is in dmsr-api(7), and no other; and a test names it
       lint.py --self-test     break each rule in a tree made up for it, and see that it is found
"""
import io
import json
import os
import re
import subprocess
import sys
import tokenize

# What a room may include, besides system headers and its own folder. Arrows point down only (src/README).
ARROWS = {
    "src/base/": ["base/"],
    "src/model/": ["base/", "model/"],
    "src/dmsr.h": ["base/", "model/"],
    "src/connectors/": ["dmsr.h"],
    "src/streamers/": ["dmsr.h"],
    "src/transforms/": ["dmsr.h"],
    "src/codecs/": ["dmsr.h"],
    "src/engine/": ["base/", "model/", "dmsr.h", "engine/"],
    "src/http/": ["base/", "engine/", "http/"],
    "src/main.c": ["base/", "engine/", "http/"],
}
# Below these, each folder is a room of its own.
ROOMS_BY_FOLDER = ["src/connectors/", "src/streamers/"]
# Libraries that only some files know.
LIBRARIES = {
    r"event2/|event\.h": r"src/base/loop\w*\.c$",
    r"libpq|postgres_ext": r"src/connectors/postgres/",
    r"microhttpd": r"src/http/",
    r"jansson": r"src/(engine|http)/|src/main\.c$|src/streamers/kafka/(schema|ordered|known|transactions|source)\.c$",
    r"sqlite3": r"src/engine/",
    r"xxhash": r"src/engine/seglog\.c$",
    r"openssl/": r"src/(engine|http|base|connectors/postgres)/",
    r"dlfcn": r"src/engine/plugin\w*\.c$",
    r"pthread|threads\.h": r"src/(base|engine)/",
    r"systemd/": r"src/(engine|http)/|src/main\.c$",
}
BANNED = ["strcpy", "stpcpy", "strcat", "strncpy", "strncat", "sprintf", "vsprintf", "gets", "atoi", "atol", "atoll", "atof",
          "strtok", "gmtime", "localtime", "ctime", "asctime", "alloca", "strdupa", "strerror_l", "tmpnam", "mktemp", "rand_r",
          "system", "popen", "setjmp", "longjmp", "malloc_usable_size"]
# In src these are base/mem's alone: what can fail there must end there.
BANNED_IN_SRC = ["malloc", "calloc", "realloc", "reallocarray", "strdup", "strndup", "asprintf", "vasprintf", "rand", "sleep",
                 "usleep", "nanosleep", "gethostbyname", "exit"]
ALLOWED = {
    "src/base/mem.c": {"malloc", "calloc", "realloc", "vasprintf"},
    "src/base/failpoint.c": {"exit"},
}
MAX_COLUMNS = 160
MAX_LINES = 800


def strip(text):
    """The code with comments and the insides of literals blanked, line for line."""
    def blank(m):
        s = m.group(0)
        if s[0] in "\"'":
            return s[0] + " " * (len(s) - 2) + s[0]
        return re.sub(r"[^\n]", " ", s)
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', blank, text, flags=re.S)


def room_of(path):
    for prefix in sorted(ARROWS, key=len, reverse=True):
        if path.startswith(prefix):
            return prefix
    return None


def own_folder(path, room):
    if room in ROOMS_BY_FOLDER:
        return path[len("src/"):path.index("/", len(room)) + 1] if "/" in path[len(room):] else None
    return room[len("src/"):] if room.endswith("/") else None


def check_includes(path, text, tree):
    room = room_of(path)
    if path.startswith("src/") and room is None:
        yield 1, "belongs to no room that lint.py knows"
        return
    for n, line in enumerate(text.split("\n"), 1):
        m = re.match(r'\s*#\s*include\s*([<"])([^>"]+)[>"]', line)
        if not m:
            continue
        quote, name = m.groups()
        for library, where in LIBRARIES.items():
            if path.startswith("src/") and re.match(library, name) and not re.match(where, path):
                yield n, f"includes {name}, which only {where} may"
        if quote != '"' or room is None or name == "config.h":
            continue
        beside = os.path.normpath(os.path.join(os.path.dirname(path), name))
        full = beside if beside in tree else "src/" + name
        if full not in tree:
            yield n, f"includes \"{name}\", which is not there"
            continue
        inner = full[len("src/"):]
        mine = own_folder(path, room)
        if mine and inner.startswith(mine):
            continue
        if not any(inner == a or (a.endswith("/") and inner.startswith(a)) for a in ARROWS[room]):
            yield n, f"includes \"{name}\" against the arrows: {room} may include {', '.join(ARROWS[room])} and its own folder"


def check_calls(path, text, tree):
    names = BANNED + (BANNED_IN_SRC if path.startswith("src/") else [])
    call = re.compile(r"(?<![\w.>])(" + "|".join(names) + r")\s*\(")
    for n, line in enumerate(strip(text).split("\n"), 1):
        for m in call.finditer(line):
            if m.group(1) not in ALLOWED.get(path, ()):
                yield n, f"calls {m.group(1)}()"


def check_text(path, text, tree):
    lines = text.split("\n")
    if not text.lstrip().startswith("/*"):
        yield 1, "has no word at its head about what it is"
    if not text.endswith("\n") or text.endswith("\n\n"):
        yield len(lines), "does not end with one newline"
    for n, line in enumerate(lines, 1):
        width = len(line.expandtabs(8))
        if width > MAX_COLUMNS:
            yield n, f"is {width} columns wide, more than {MAX_COLUMNS}"
        if line != line.rstrip():
            yield n, "ends with white space"
        if re.match(r" {2,}(?!\*)", line) and not re.match(r"\s*\*", line):
            yield n, "is indented with spaces"
        if re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield n, "says that it is not finished"
    for n, line in enumerate(strip(text).split("\n"), 1):
        if re.match(r"\s*typedef\s+(struct|union|enum)\b", line):
            yield n, "hides a struct behind a typedef"
    if path.startswith("src/") and len(lines) - 1 > MAX_LINES:
        yield 1, f"has {len(lines) - 1} lines, more than {MAX_LINES}"
    if path.endswith(".h") and not re.search(r"^#ifndef (\w+)\n#define \1\n", text, re.M):
        yield 1, "has no include guard"


def options(path, text):
    """(name, line) of each entry of an option table."""
    for m in re.finditer(r'\{\s*(?:\.(?:name|path)\s*=\s*)?"([\w.]+)",\s*(?:\.type\s*=\s*)?(?:DMSR|CONFIG)_OPT_', text):
        yield m.group(1), text.count("\n", 0, m.start()) + 1


def in_sample(sample, path):
    """Is the option in the sample, at its place, in force or behind //?"""
    try:
        at = json.loads(sample)
    except ValueError:
        return False
    *sections, name = path.split(".")
    for part in sections:
        at = at.get(part)
        if not isinstance(at, dict):
            return False
    return name in at or "//" + name in at


def check_options(path, text, tree):
    """The daemon's options are in the sample. That all options are in the manual is tests/tools/man-options's to see."""
    if not path.startswith("src/engine/config"):
        return
    for name, n in options(path, text):
        if not in_sample(tree.get("etc/dmsrd.json", ""), name):
            yield n, f"option {name} is not in etc/dmsrd.json"


# What automake takes along by itself, or what only git needs.
UNLISTED = re.compile(r"(\.gitignore|Makefile\.am|configure\.ac|m4/.*|README|NEWS|.*\.in)$")


def check_listed(path, tree):
    """A file that Makefile.am does not name, itself or by a folder, is not built, not run, or not in the tarball."""
    name = path
    if re.match(r"tests/(unit/test|fuzz/fuzz)_\w+\.c$", path):
        name = path[:-2]
    while name and not UNLISTED.match(path):
        if re.search(r"(?<![\w./-])" + re.escape(name) + r"(?![\w./-])", tree.get("Makefile.am", "")):
            return
        name = os.path.dirname(name)
        if not name:
            yield 1, "is not in Makefile.am"


# Where an id stands behind an error's code, or a check's level; and where texts that look like ids are none.
WORD = r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*"
ID = rf'"({WORD}\.{WORD})"'
ID_GIVEN = re.compile(rf'\b(?:DMSR_E[A-Z]+|DMSR_CHECK_[A-Z]+)\b[^";{{}}]{{0,80}}?"({WORD}\.{WORD})"'
                      rf'|"({WORD}\.{WORD})",\s*DMSR_CHECK_|\bDMSR_E[A-Z]+,\s*"({WORD})"')
ID_STATUS = re.compile(rf'\{{ "({WORD}(?:\.{WORD})?)", [1-5]\d\d, "')
ID_CLASS = re.compile(r'\{ "[0-9A-Z]*", DMSR_E[A-Z]+, (?:true|false), "([a-z-]+)"')
NO_ID = re.compile(r'#\s*include[^\n]*|\b(?:\w*failpoint|config_\w+|loop_\w+_new|loop_\w+_start|log_\w+)\s*\([^;{}]*?[;{]', re.S)
PAGE = "man/dmsr-api.7"


def ids(tree):
    """id -> (path, line) of one place that sets it. A family that is known ("slot.") makes every text of its kind an id."""
    found, texts = {}, {}
    for path, text in sorted(tree.items()):
        if not re.match(r"src/.*\.c$", path) or path.startswith(("src/connectors/fake/", "src/engine/config")):
            continue
        code = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group(0)), text, flags=re.S)
        for m in list(ID_GIVEN.finditer(code)) + list(ID_STATUS.finditer(code)):
            name = next(filter(None, m.groups()))
            found.setdefault(name, (path, code.count("\n", 0, m.end()) + 1))
        for m in ID_CLASS.finditer(code):
            found.pop(m.group(1), None)
            for role in ("source", "target"):
                found.setdefault(f"{role}.{m.group(1)}", (path, code.count("\n", 0, m.start()) + 1))
        plain = NO_ID.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), code)
        for m in re.finditer(ID, plain):
            texts.setdefault(m.group(1), (path, plain.count("\n", 0, m.start()) + 1))
    families = {name.split(".")[0] for name in found if "." in name} - {"http"}
    for name, where in texts.items():
        if name.split(".")[0] in families:
            found.setdefault(name, where)
    if "src/engine/config.c" in tree:
        found.setdefault("config.invalid", ("src/engine/config.c", 1))
    return found


def without_comments(python):
    lines = python.splitlines(keepends=True)
    for t in tokenize.generate_tokens(io.StringIO(python).readline):
        if t.type == tokenize.COMMENT:
            n, column = t.start
            lines[n - 1] = lines[n - 1][:column] + "\n"
    return "".join(lines)


def named_in_tests(tree):
    """Texts of tests that are ids, each a literal of its own. What a double of the engine says by itself proves nothing of the code."""
    named = set()
    for path, text in tree.items():
        if re.match(r"tests/(unit|it)/\w+\.(c|h|py)$", path) and path != "tests/unit/engine_double.c":
            code = without_comments(text) if path.endswith(".py") else re.sub(r"/\*.*?\*/", "", text, flags=re.S)
            named.update(m.group(2) for m in re.finditer(rf'(["\'])({WORD}(?:\.{WORD})?)(?=\1)', code))
    return named


def check_routes(tree, manual):
    """Each path that the router knows is told of: by its last word, since the page joins paths that begin alike."""
    path = "src/http/router.c"
    for m in re.finditer(r'^\t\{ [A-Z_ |]+, "(/[^"]*)"', tree.get(path, ""), re.M):
        words = [w for w in m.group(1).split("/") if w and not w.startswith("{")]
        if words and not re.search("/" + re.escape(words[-1]) + r"(?![\w-])", manual):
            yield f"{path}:{tree[path].count(chr(10), 0, m.start()) + 1}: path {m.group(1)} is not in {PAGE}"


def check_ids(tree):
    manual = tree.get(PAGE, "").replace("\\-", "-").replace("\\&", "")
    told = {m.group(1): manual.count("\n", 0, m.start()) + 1 for m in re.finditer(r"^\.It Sy (\S+)$", manual, re.M)}
    known = ids(tree)
    findings = [f"{path}:{n}: id {name} is not in {PAGE}" for name, (path, n) in sorted(known.items()) if name not in told]
    findings += check_routes(tree, manual)
    named = named_in_tests(tree)
    findings += [f"{path}:{n}: id {name} is named by no test in tests/unit or tests/it" for name, (path, n) in sorted(known.items()) if name not in named]
    return findings + [f"{PAGE}:{n}: no code knows the id {name}" for name, n in sorted(told.items()) if name not in known]


def check_rooms(tree):
    """The rooms whose log levels may be set are those that write to the log."""
    path = "src/engine/config_check.c"
    m = re.search(r"config_rooms\[\] = \{(.*?)\}", tree.get(path, ""), re.S)
    listed = set(re.findall(r'"([^"]+)"', m.group(1))) if m else set()
    write = {name for p, text in tree.items() if re.match(r"src/.*\.c$", p) and "src/connectors/fake/" not in p
             for name in re.findall(r'\blog_(?:error|warn|info|debug|write)\((?:[^"();]*,\s*)?"([^"]+)"', text)}
    if m:
        yield from (f"{path}:1: room {name} is not in the list" for name in sorted(write - listed))
        yield from (f"{path}:1: no code writes as room {name}" for name in sorted(listed - write))


RULES = [check_includes, check_calls, check_text, check_options]


def check(tree):
    findings = list(check_rooms(tree))
    for path, text in sorted(tree.items()):
        findings += [f"{path}:{n}: {what}" for n, what in check_listed(path, tree)]
        if not path.endswith((".c", ".h")):
            continue
        for rule in RULES:
            findings += [f"{path}:{n}: {what}" for n, what in rule(path, text, tree)]
    return findings


def read_tree(top):
    """What git has here, or would have; in a tarball, all there is."""
    git = subprocess.run(["git", "-C", top, "ls-files", "-co", "--exclude-standard", "-z", "."], capture_output=True, text=True)
    paths = git.stdout.split("\0") if git.returncode == 0 else [
        os.path.relpath(os.path.join(where, name), top) for where, _, names in os.walk(top) for name in names
        if where.startswith(tuple(os.path.join(top, folder) for folder in ("src", "tests", "man", "etc")))]
    tree = {}
    for path in filter(None, paths + ["Makefile.am"]):
        full = os.path.join(top, path)
        if os.path.isfile(full) and not os.path.islink(full):
            with open(full, encoding="utf-8", errors="replace") as f:
                tree[path] = f.read()
    return tree


HEAD = "/* x: y. */\n"
GUARD = HEAD + "#ifndef X_H\n#define X_H\n#endif\n"
CLEAN = {
    "src/base/loop.h": GUARD, "src/base/loop.c": HEAD + '#include "base/loop.h"\n#include <event2/event.h>\n',
    "src/model/row.h": HEAD + '#ifndef R\n#define R\n#include "base/loop.h"\n#endif\n',
    "src/dmsr.h": HEAD + '#ifndef D\n#define D\n#include "model/row.h"\n#endif\n',
    "src/connectors/a/a.h": GUARD,
    "src/connectors/a/a.c": HEAD + '#include "a.h"\n#include "connectors/a/a.h"\n#include "dmsr.h"\n'
                            '/* strcpy( is only named */\n'
                            'static const char *s = "sprintf(";\nint x = my_strcpy(a->system(1));\n',
    "src/connectors/b/b.h": GUARD, "src/codecs/json.c": HEAD + '#include "dmsr.h"\n',
    "src/engine/job.h": GUARD, "src/engine/job.c": HEAD + '#include "config.h"\n#include "dmsr.h"\n#include "engine/job.h"\n',
    "src/engine/config.c": HEAD + 't = {\n\t{ "http.listen", DMSR_OPT_STRING },\n\t{ "http.token", DMSR_OPT_STRING },\n};\n',
    "src/http/get.c": HEAD + '#include "engine/job.h"\n', "src/http/get.h": GUARD,
    "src/main.c": HEAD + '#include "http/get.h"\n',
    "tests/unit/test_t.c": HEAD + '#include "connectors/a/a.h"\nint x = rand();\n',
    "etc/dmsrd.json": '{"http":{"listen":"x","//token":"y","// cert":"as http.cert is"}}',
}
CLEAN["Makefile.am"] = "\n".join(re.sub(r"^(tests/.*)\.c$", r"\1", p) for p in CLEAN)
# (file, what is put at its end, a part of the finding; None: the file's whole text is replaced)
BREAKS = [
    ("src/http/new.c", HEAD, "not in Makefile.am"),
    ("tests/it/test_new.py", "", "not in Makefile.am"),
    ("run-me", "", "not in Makefile.am"),
    ("tests/unit/test_new.c", HEAD, "not in Makefile.am"),
    ("src/base/loop.c", '#include "model/row.h"\n', "against the arrows"),
    ("src/base/loop.c", '#include "dmsr.h"\n', "against the arrows"),
    ("src/model/row.h", '#include "dmsr.h"\n', "against the arrows"),
    ("src/model/row.h", '#include "engine/job.h"\n', "against the arrows"),
    ("src/dmsr.h", '#include "engine/job.h"\n', "against the arrows"),
    ("src/connectors/a/a.c", '#include "connectors/b/b.h"\n', "against the arrows"),
    ("src/connectors/a/a.c", '#include "../b/b.h"\n', "against the arrows"),
    ("src/connectors/a/a.c", '#include "engine/job.h"\n', "against the arrows"),
    ("src/connectors/a/a.c", '#include "base/loop.h"\n', "against the arrows"),
    ("src/connectors/a/a.c", '# include  <event2/dns.h>\n', "event2/dns.h"),
    ("src/codecs/json.c", '#include "connectors/a/a.h"\n', "against the arrows"),
    ("src/codecs/json.c", "#include <jansson.h>\n", "jansson.h"),
    ("src/engine/job.c", '#include "connectors/a/a.h"\n', "against the arrows"),
    ("src/engine/job.c", '#include "http/get.h"\n', "against the arrows"),
    ("src/engine/job.c", "#include <libpq-fe.h>\n", "libpq-fe.h"),
    ("src/http/get.c", '#include "dmsr.h"\n', "against the arrows"),
    ("src/http/get.c", '#include "connectors/a/a.h"\n', "against the arrows"),
    ("src/http/get.c", '#include "nothing.h"\n', "not there"),
    ("src/connectors/a/a.c", "int y = strcpy (a, b);\n", "calls strcpy()"),
    ("src/connectors/a/a.c", "char *p = malloc(3);\n", "calls malloc()"),
    ("tests/unit/test_t.c", "int y = atoi(s);\n", "calls atoi()"),
    ("src/http/get.c", "int y = localtime(s);\n", "calls localtime()"),
    ("src/http/get.c", "typedef struct x y;\n", "typedef"),
    ("src/engine/config_check.c", HEAD + 'config_rooms[] = { "job" };\nlog_info("job", NULL, "x");\nlog_warn("cellar", NULL, "y");\n', "room cellar is not in the list"),
    ("src/engine/config_check.c", HEAD + 'config_rooms[] = { "job", "attic" };\nlog_info("job", NULL, "x");\n', "no code writes as room attic"),
    ("src/http/get.c", "/* TO" "DO later */\n", "not finished"),
    ("src/http/get.c", "    int x;\n", "indented with spaces"),
    ("src/http/get.c", "int x; \n", "white space"),
    ("src/http/get.c", "int x;", "newline"),
    ("src/http/get.c", "int x; /* " + "y" * 160 + " */\n", "columns wide"),
    ("src/http/get.c", "int x;\n" * 800, "lines, more than"),
    ("src/http/new.c", "int x;\n", "no word at its head"),
    ("src/http/new.h", HEAD, "no include guard"),
    ("src/lib/new.c", HEAD, "no room"),
    ("src/engine/config.c", 't = {\n\t{ "http.cert", DMSR_OPT_STRING },\n};\n', "option http.cert is not in etc/dmsrd.json"),
    ("src/engine/config.c", 't = {\n\t{ "http.many", CONFIG_OPT_OBJECT },\n};\n', "option http.many is not in etc/dmsrd.json"),
]


IDS_CLEAN = {
    "src/engine/job.c": 'my_failpoint("job.begin");\n/* "job.none" */ t = loop_task_new(l, "job.turn", f, g);\n'
                        'return err_set(e, DMSR_ESTATE, "job.gone", "%s", n);\nfail(j, "job.late");\nerr_set(e, rc ? DMSR_EIO : DMSR_EFULL,\n\t"draining", "x");\n',
    "src/connectors/a/a.c": 'struct class k[] = {\n\t{ "08", DMSR_EIO, true, "away" },\n};\nfound(p, DMSR_CHECK_OK, "a.tls", "x.y");\nk = { "a.here", DMSR_CHECK_OK, "a" };\n',
    "src/http/problem.c": 'k = {\n\t{ "busy", 503, "Busy" },\n};\n',
    "src/http/router.c": 'r = {\n\t{ METHOD_GET, "/jobs/{name}/status", 0 },\n\t{ METHOD_PUT | METHOD_POST, "/jobs", 0 },\n',
    PAGE: ".It Ic GET /jobs/ Ns Ar name Ns /status\n.It Sy job.gone\n.It Sy job.late\n.It Sy draining\n.It Sy source.away\n.It Sy target.away\n.It Sy a.tls\n.It Sy a.here\n.It Sy busy\n",
    "tests/unit/test_job.c": '/* "job.new" */ is(e.id, "job.gone");\nx = { "job.late", "draining", "busy" };\n', "tests/unit/engine_double.c": 'refuse("job.new");\n',
    "tests/it/test_a.py": "assert code in ('source.away', \"target.away\")\nassert seen == {'a.tls': 1, \"a.here\": 2}, 'not job.new here' # no 'job.new'\n",
}
IDS_BREAKS = [
    ("src/engine/job.c", 'err_retry(e, DMSR_EIO, "job.new", "x");\n', "src/engine/job.c:7: id job.new is not in"),
    ("src/engine/job.c", 'snprintf(e->id, 9, "job.odd");\n', "id job.odd is not in"),
    ("src/connectors/a/a.c", '{ "57P01", DMSR_EIO, true, "shut-down" },\n', "id target.shut-down is not in"),
    ("src/connectors/a/a.c", 'found(p, DMSR_CHECK_ERROR, "a.old", o);\n', "id a.old is not in"),
    ("src/http/router.c", '\t{ METHOD_GET, "/jobs/{name}/stat/{id}", 0 },\n', "path /jobs/{name}/stat/{id} is not in"),
    (PAGE, ".It Sy job.old\n", "no code knows the id job.old"),
    ("src/engine/job.c", 'err_retry(e, DMSR_EIO, "job.new", "x");\n', "src/engine/job.c:7: id job.new is named by no test"),
]


def self_test():
    failures = [f"finds in a clean tree: {f}" for f in check(CLEAN)]
    for path, text, want in BREAKS:
        tree = dict(CLEAN)
        tree[path] = tree.get(path, "") + text
        if not any(f.startswith(path + ":") and want in f for f in check(tree)):
            failures.append(f"does not find \"{want}\" in {path} with {text[:60]!r}")
    failures += [f"finds in clean ids: {f}" for f in check_ids(IDS_CLEAN)]
    for path, text, want in IDS_BREAKS:
        if not any(want in f for f in check_ids({**IDS_CLEAN, path: IDS_CLEAN[path] + text})):
            failures.append(f"does not find \"{want}\" in {path} with {text[:60]!r}")
    return failures


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--ids":
        found = check_ids(read_tree(sys.argv[2]))
    elif len(sys.argv) == 2:
        found = self_test() if sys.argv[1] == "--self-test" else check(read_tree(sys.argv[1]))
    else:
        sys.exit(__doc__)
    for f in found:
        print(f, file=sys.stderr)
    sys.exit(1 if found else 0)


main()
