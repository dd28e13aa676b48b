"""The PostgreSQL target against a model: random transactions on several kinds of tables, killed and started again, end as the model says."""
import contextlib
import random

import pytest
from feed import UNCHANGED, Feed, Script, c, column, d, u

# Besides, "wide" gets, loses and changes columns all the time.
TABLES = {
    "keyed": ("primary", [column("id", "int4", key=1), column("a"), column("big"), column("tags", "text[]")]),
    "pair": ("primary", [column("k1", "int4", key=1), column("v", "numeric"), column("k2", key=2)]),
    "uniq": ("primary", [column("id", "int4", key=1), column("code", "int4")]),
    "full": ("full", [column("a", "int4"), column("j", "json"), column("f", "float8")]),
    "log": ("none", [column("at", "int8"), column("what")]),
}
SQL = """CREATE TABLE keyed (id int PRIMARY KEY, a text, big text, tags text[]);
CREATE TABLE pair (k1 int, v numeric, k2 text COLLATE "C", PRIMARY KEY (k1, k2));
CREATE TABLE uniq (id int PRIMARY KEY, code int UNIQUE);
CREATE TABLE "full" (a int, j json, f float8); ALTER TABLE "full" REPLICA IDENTITY FULL;
CREATE TABLE log (at bigint, what text);"""
ODD = ["", "plain", "NULL", "null", 'q"uo\\te', "{a,b}", "new\nline", "ünï", " space ", "\\x00", "a,b", "(1,2)", None]


class Model:
    """What the source has. Rows are lists of texts and None."""

    def __init__(self, rng):
        self.rng = rng
        self.rows = {name: [] for name in TABLES}
        self.n = 0

    def value(self, name, col):
        r, typ = self.rng, TABLES[name][1][col]["native"]
        if TABLES[name][1][col]["key"]:
            return str(r.randrange(40)) if typ == "integer" else r.choice(["x", "y", 'q"', "NULL"])
        if name == "uniq":
            return str(r.randrange(60))
        if typ == "integer" or typ == "bigint":
            return str(r.randrange(5))
        if typ == "numeric":
            return r.choice(["1.0", "1.00", "NaN", "-5", None])
        if typ == "double precision":
            return r.choice(["0", "-0", "NaN", "1.5", None])
        if typ == "json":
            return r.choice(['{"a": 1}', "[]", "null", None])
        if typ == "text[]":
            return r.choice(["{}", "{a,b}", '{"x,y",NULL}', "{{a,b},{c,d}}", None])
        return r.choice(ODD)

    def key(self, name, row):
        return tuple(row[i] for i, col in enumerate(TABLES[name][1]) if col["key"])

    def is_free(self, name, row, but=None):
        """Would the source take this row?"""
        for other in self.rows[name]:
            if other is but:
                continue
            if TABLES[name][0] == "primary" and self.key(name, other) == self.key(name, row):
                return False
            if name == "uniq" and other[1] == row[1]:
                return False
        return True

    def old(self, name, row):
        if TABLES[name][0] == "full":
            return list(row)
        return [v if TABLES[name][1][i]["key"] else UNCHANGED for i, v in enumerate(row)]

    def insert(self, name):
        row = [self.value(name, i) for i in range(len(TABLES[name][1]))]
        if not self.is_free(name, row):
            return []
        self.rows[name].append(row)
        return [c(name, *row)]

    def update(self, name):
        if not self.rows[name] or name == "log":
            return []
        at = self.rng.randrange(len(self.rows[name]))
        row = self.rows[name][at]
        moves = self.rng.random() < 0.15
        new = [v if self.rng.random() < 0.4 or (TABLES[name][1][i]["key"] and not moves) else self.value(name, i) for i, v in enumerate(row)]
        if not self.is_free(name, new, but=row):
            return []
        sent = list(new)
        if name == "keyed" and new[2] == row[2]:
            sent[2] = UNCHANGED
        before = self.old(name, row) if TABLES[name][0] == "full" or self.key(name, new) != self.key(name, row) else None
        self.rows[name][at] = new
        return [u(name, sent, before)]

    def delete(self, name):
        if not self.rows[name] or name == "log":
            return []
        row = self.rows[name].pop(self.rng.randrange(len(self.rows[name])))
        return [d(name, *self.old(name, row))]

    def truncate(self):
        names = self.rng.sample(list(TABLES), 2)
        for name in names:
            self.rows[name] = []
        return [{"t": names[0], "more": True}, {"t": names[1]}]

    def transaction(self, size):
        changes = []
        for _ in range(size):
            if self.rng.random() < 0.002:
                changes += self.truncate()
                continue
            name = self.rng.choice(list(TABLES))
            changes += self.rng.choice([self.insert, self.insert, self.update, self.update, self.delete])(name)
        return changes


def script_of(model, transactions, lsn=200):
    script = Script()
    for name, (key, columns) in TABLES.items():
        script.rel(name, name, columns, key=key)
    for _ in range(transactions):
        lsn += 10
        script.tx(lsn, *model.transaction(model.rng.choice([1, 3, 10, 200])))
    return script.wait()


def same(db, model):
    with contextlib.closing(db.server.connect(db.name)) as connection:
        cursor = connection.cursor()
        for name, (_, columns) in TABLES.items():
            cursor.execute("SELECT ROW(" + ", ".join(f'"{col["name"]}"::text' for col in columns) + f')::text FROM "{name}"')
            have = sorted(r[0] for r in cursor.fetchall())
            values = ", ".join(f"%s::{'text' if col['native'] == 'bigint' else col['native']}::text" for col in columns)
            want = []
            for row in model.rows[name]:
                cursor.execute(f"SELECT ROW({values})::text", row)
                want.append(cursor.fetchone()[0])
            assert have == sorted(want), name


@pytest.mark.spread
@pytest.mark.parametrize("seed", range(6))
def test_random_changes(any_pg, seed):
    db = any_pg.database("random")
    db.sql(SQL)
    model = Model(random.Random(seed))
    # Small transactions of the target, big ones; triggers that rest, and not.
    options = [{}, {"commit_rows": 7}, {"session_replication_role": "off"}][seed % 3]
    Feed(db, prepare="none", **options).ok(script_of(model, 60))
    same(db, model)


class Wide:
    """A table whose columns change between its rows; the words for it go into the script as they come."""

    WIDER = {"int4": "int8", "int8": "numeric", "numeric": "text"}

    def __init__(self, rng, script):
        self.rng, self.script = rng, script
        self.columns = [("id", "int4", None), ("a", "text", None), ("b", "int4", None)]
        self.rows, self.version, self.names = [], 0, 0
        self.declare()

    def declare(self):
        self.version += 1
        self.script.rel(f"w{self.version}", "wide", [column(name, typ, key=int(name == "id"), dflt=dflt) for name, typ, dflt in self.columns])
        return f"w{self.version}"

    def value(self, typ):
        return self.rng.choice([None, "x", "", "7"]) if typ == "text" else self.rng.choice([None, "1", "22"])

    def alter(self):
        r, at = self.rng, self.rng.randrange(1, len(self.columns)) if len(self.columns) > 1 else 0
        what = r.choice(["add", "add", "drop", "rename", "retype"])
        self.names += 1
        if what == "add":
            typ = r.choice(["text", "int4"])
            dflt = r.choice([None, "5" if typ == "int4" else "'d'::text"])
            self.columns.append((f"n{self.names}", typ, dflt))
            for row in self.rows:
                row.append(dflt and dflt.split("'")[1] if typ == "text" and dflt else dflt)
        elif at and what == "drop":
            del self.columns[at]
            for row in self.rows:
                del row[at]
        elif at and what == "rename":
            self.columns[at] = (f"r{self.names}", *self.columns[at][1:])
        elif at and self.columns[at][1] in self.WIDER:
            self.columns[at] = (self.columns[at][0], self.WIDER[self.columns[at][1]], None)
        else:
            return []
        old = f"w{self.version}"
        return [{"schema": self.declare(), "old": old}]

    def change(self):
        rel, r = f"w{self.version}", self.rng
        row = [str(r.randrange(60))] + [self.value(typ) for _, typ, _ in self.columns[1:]]
        at = next((i for i, old in enumerate(self.rows) if old[0] == row[0]), None)
        if at is None:
            self.rows.append(row)
            return [c(rel, *row)]
        if r.random() < 0.3:
            del self.rows[at]
            return [d(rel, row[0], *[UNCHANGED] * (len(row) - 1))]
        self.rows[at] = row
        return [u(rel, row)]


@pytest.mark.spread
@pytest.mark.parametrize("seed", range(4))
def test_random_columns(any_pg, seed):
    """Columns come, go, change their names and types in the middle of transactions; killed and started again in between."""
    db = any_pg.database("wide")
    db.sql("CREATE TABLE wide (id int PRIMARY KEY, a text, b int)")
    rng, script = random.Random(seed), Script()
    wide = Wide(rng, script)
    for k in range(60):
        changes = []
        for _ in range(rng.choice([1, 5, 30])):
            changes += wide.alter() if rng.random() < 0.03 else wide.change()
        script.tx(200 + 10 * k, *changes)
    script.wait()
    feed = Feed(db, prepare="none", commit_rows=rng.choice([10, 10000]))
    for _ in range(4):
        feed.killed_after(script, 1)
    feed.ok(script)
    assert [r[0] for r in db.sql("SELECT attname FROM pg_attribute WHERE attrelid = 'wide'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum")] == \
        [name for name, _, _ in wide.columns]
    have = db.sql("SELECT " + ", ".join(f"{name}::text" for name, _, _ in wide.columns) + " FROM wide ORDER BY wide.id")
    assert [list(r) for r in have] == sorted(wide.rows, key=lambda row: int(row[0]))
