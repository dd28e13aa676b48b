"""Every built-in type with its edges, as SQL literals: what the tests of types load, stream and compare."""

BIG_NUMERIC = "'" + "9" * 131072 + "." + "9" * 1000 + "'::numeric"

# type -> expressions; each is one row. NULL is added to all.
VALUES = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "32767", "0"],
    "integer": ["-2147483648", "2147483647", "0"],
    "bigint": ["-9223372036854775808", "9223372036854775807", "9007199254740993"],
    "numeric": ["'NaN'", "0", "'0.00'", "'-0.10'", "'1e-1000'", "'12345678901234567890.123456789'", BIG_NUMERIC],
    "numeric(12,2)": ["'-9999999999.99'", "'0.10'", "'NaN'"],
    "real": ["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "1.1", "3.4028235e38", "1e-45"],
    "double precision": ["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "0.1", "1.7976931348623157e308", "5e-324", "0.30000000000000004"],
    "money": ["'-92233720368547758.08'", "'0.01'"],
    "text": ["''", "E'\\\\N'", "E'a\\tb\\nc\\rd\\be\\f\\v\\\\.'", "E'\\\\x00'", "'NULL'", "'null'", "E'\\u00e9 \\U0001F600 \\u202e'", "repeat('x', 300000)", "E'\\x01\\x1f\\x7f'", "'\"quoted\", {braces}'"],
    "varchar(10)": ["''", "'abc  '", "'0123456789'"],
    "char(5)": ["''", "'ab'", "'abcde'"],
    "\"char\"": ["'a'", "''", "'\\200'"],
    "name": ["'n'", "repeat('y', 63)"],
    "bytea": ["''", "'\\x00'", "'\\x00ff5c27220a0d'", "decode(repeat('00ff', 100000), 'hex')"],
    "uuid": ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"],
    "json": ["'{\"a\":  1, \"a\": 2}'", "'null'", "'\"\\u0041\"'", "'  [1,2 ]'"],
    "jsonb": ["'{\"b\": 1e400, \"a\": [null, true, \"\\u00e9\\\"\"]}'", "'null'", "'0.10'", "'\"\"'"],
    "xml": ["'<a b=\"c\">d&amp;</a>'", "'text'"],
    "date": ["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'5874897-12-31'", "'2000-02-29'", "'0001-01-01'"],
    "time": ["'00:00'", "'24:00:00'", "'23:59:59.999999'"],
    "time(0)": ["'12:34:56'"],
    "timetz": ["'00:00+15:59:59'", "'24:00:00-15:59'", "'10:00:00.000001+00'"],
    "timestamp": ["'infinity'", "'-infinity'", "'4713-01-01 00:00:00 BC'", "'294276-12-31 23:59:59.999999'", "'1969-12-31 23:59:59.999999'", "'0044-03-15 12:00:00 BC'"],
    "timestamp(3)": ["'2026-01-31 10:00:00.123'"],
    "timestamptz": ["'infinity'", "'-infinity'", "'4714-11-24 00:00:00+00 BC'", "'294276-12-31 23:59:59.999999+00'", "'2026-03-29 02:30:00+01'"],
    "interval": ["'178000000 years'", "'-178000000 years'", "'1 mon -1 days +00:00:00.000001'", "'-1 year -2 mons +3 days -04:05:06.7'", "'0'", "'P1Y2M3DT4H5M6.789S'"],
    "interval day to second(2)": ["'3 days 04:05:06.78'"],
    "bit(1)": ["'0'", "'1'"],
    "bit(17)": ["'10101010101010101'"],
    "varbit": ["''", "'1'", "'010101010101010101010101010101010101'"],
    "inet": ["'192.168.0.1/24'", "'::1'", "'::ffff:1.2.3.4/96'", "'0.0.0.0/0'"],
    "cidr": ["'10.0.0.0/8'", "'2001:db8::/32'"],
    "macaddr": ["'08:00:2b:01:02:03'"],
    "macaddr8": ["'08:00:2b:01:02:03:04:05'"],
    "point": ["'(1.5,-2.25)'", "'(NaN,Infinity)'", "'(-0,1e-300)'"],
    "line": ["'{1,-1,0}'"],
    "lseg": ["'[(0,0),(1,1.1)]'"],
    "box": ["'(3,4),(1,2)'"],
    "path": ["'[(0,0),(1,1)]'", "'((0,0),(1,1),(2,0))'"],
    "polygon": ["'((0,0),(1,1),(2,0))'"],
    "circle": ["'<(1,2),3.3>'"],
    "tsvector": ["'a:1A b:2,3C ''it''''s'':5'", "''"],
    "tsquery": ["'a & (b | !c) <-> d:*'", "''"],
    "oid": ["0", "4294967295"],
    "regclass": ["'pg_class'"],
    "regtype": ["'integer'"],
    "regproc": ["'now'"],
    "regprocedure": ["'abs(integer)'"],
    "regoper": ["'||/'"],
    "regoperator": ["'-(integer,integer)'"],
    "regrole": ["'postgres'"],
    "regnamespace": ["'pg_catalog'"],
    "regconfig": ["'english'"],
    "regdictionary": ["'simple'"],
    "aclitem": ["'postgres=r*w/postgres'", "'=r/postgres'"],
    "aclitem[]": ["ARRAY['postgres=r/postgres'::aclitem, NULL]"],
    "int2vector": ["'1 -2 3'", "''"],
    "oidvector": ["'4294967295 0'", "''"],
    "refcursor": ["''", "'<unnamed portal 1>'"],
    "xid": ["'4294967295'"],
    "cid": ["'7'"],
    "tid": ["'(4294967295,65535)'"],
    "pg_lsn": ["'0/0'", "'FFFFFFFF/FFFFFFFF'"],
    "txid_snapshot": ["'10:20:10,14,15'"],
    "jsonpath": ["'$.a[*] ? (@ > 1)'"],
    "int4range": ["'empty'", "'[1,10)'", "'(,)'", "'[5,)'"],
    "int8range": ["'[-9223372036854775808,5)'"],
    "numrange": ["'(0.10,1.5]'", "'[NaN,NaN]'"],
    "tsrange": ["'[2026-01-01 00:00,infinity)'", "'(-infinity,\"2026-01-01 10:00:00.5\"]'"],
    "tstzrange": ["'[2026-01-01 00:00+02,)'"],
    "daterange": ["'[2026-01-01,2026-02-01)'", "'empty'"],
    "text[]": ["'{}'", "ARRAY['a', NULL, '', 'NULL', '\"', '\\', ',', '{}', ' ']", "'[0:1]={x,y}'", "ARRAY[['a','b'],['c','d']]"],
    "integer[]": ["'{}'", "'{1,NULL,-5}'", "'[-3:-2][5:6]={{1,2},{3,4}}'"],
    "numeric[]": ["'{NaN,0.10}'"],
    "bytea[]": ["ARRAY['\\x00'::bytea, NULL, '\\x5c22']"],
    "timestamptz[]": ["ARRAY['infinity'::timestamptz, '2026-01-01 00:00+00']"],
    "jsonb[]": ["ARRAY['{\"a\": \"b,c\"}'::jsonb, 'null']"],
    "box[]": ["ARRAY['(1,1),(0,0)'::box, '(3,3),(2,2)']"],
    "boolean[]": ["'{t,f,NULL}'"],
    "uuid[]": ["ARRAY['00000000-0000-0000-0000-000000000001'::uuid]"],
    "bit(3)[]": ["ARRAY[B'101', NULL]"],
    "int4range[]": ["ARRAY['[1,3)'::int4range, 'empty', NULL]"],
    # of our own
    "mood": ["'sad'", "'ok'", "'very, \"happy\"'"],
    "\"Odd Schema\".\"My Type\"": ["'x'", "'it''s'"],
    "mood[]": ["ARRAY['sad', NULL, 'very, \"happy\"']::mood[]"],
    "positive": ["1", "2147483647"],
    "email": ["'a@b'", "'\"q\"@x'"],
    "pair": ["ROW(1, 'a')", "ROW(NULL, '')", "ROW(-1, '\",()\\')", "ROW(NULL, NULL)"],
    "pair[]": ["ARRAY[ROW(1, 'a,b')::pair, NULL]"],
    "nested": ["ROW(ROW(1, '\"'), '{1,2}', 'sad')"],
    "pairdom": ["ROW(2, 'z')"],
    "floatrange": ["'[1.5,2.5)'", "'empty'"],
    "hstore": ["'a=>1, b=>NULL, \"c d\"=>\"e,\\\"f\"'", "''"],
    "citext": ["'CaSe'"],
    "ltree": ["'Top.Science.Astronomy'"],
}
SINCE_13 = {
    "xid8": ["'0'", "'18446744073709551615'"],
    "pg_snapshot": ["'10:20:10,14,15'", "'18446744073709551:18446744073709551:'"],
    "regcollation": ["'\"C\"'"],
}
SINCE_14 = {
    "numeric": ["'Infinity'", "'-Infinity'"],
    "numeric[]": ["'{Infinity,-Infinity}'"],
    "int4multirange": ["'{}'", "'{[1,3),[5,7)}'"],
    "int8multirange": ["'{[-9223372036854775808,5),[9223372036854775806,)}'"],
    "tsmultirange": ["'{[2026-01-01 00:00,2026-01-01 10:00:00.5),[2026-02-01 00:00,infinity]}'"],
    "nummultirange": ["'{(0.1,0.2],[5,)}'"],
    "tstzmultirange": ["'{[2026-01-01 00:00+00,2026-01-02 00:00+00)}'"],
    "datemultirange[]": ["ARRAY['{[2026-01-01,2026-02-01)}'::datemultirange]"],
}
SINCE_17 = {"interval": ["'infinity'", "'-infinity'"]}

TYPES = """
CREATE SCHEMA "Odd Schema";
CREATE TYPE mood AS ENUM ('sad', 'ok', 'very, "happy"');
CREATE TYPE "Odd Schema"."My Type" AS ENUM ('x', 'it''s');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%') DEFAULT 'a@b';
CREATE TYPE pair AS (a integer, b text);
CREATE TYPE nested AS (p pair, l integer[], m mood);
CREATE DOMAIN pairdom AS pair CHECK ((VALUE).a > 0);
CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE EXTENSION hstore; CREATE EXTENSION citext; CREATE EXTENSION ltree;
"""


def values(version):
    found = {t: list(v) for t, v in VALUES.items()}
    for since, more in ((13, SINCE_13), (14, SINCE_14), (17, SINCE_17)):
        if version >= since:
            for t, v in more.items():
                found.setdefault(t, []).extend(v)
    return found


def table_of(i):
    return f"zoo_{i:03d}"


def create(version):
    """The tables, one a type: id, v, and a note that fills the row."""
    return TYPES + "".join(f"CREATE TABLE {table_of(i)} (id integer PRIMARY KEY, v {t}, note text);\n" for i, t in enumerate(values(version)))


def insert(version, first_id, what="ARRAY[]"):
    """Each value of each type as a row; ids from first_id on; the last is NULL."""
    out = []
    for i, (t, list_) in enumerate(values(version).items()):
        for n, v in enumerate(list_):
            out.append(f"INSERT INTO {table_of(i)} VALUES ({first_id + n}, ({v})::{t}, $note${what}$note$);")
        out.append(f"INSERT INTO {table_of(i)} VALUES ({first_id + len(list_)}, NULL, NULL);")
    return "\n".join(out)


def rotate(version, first_id):
    """Each row of insert(first_id) gets the next row's value: every value is the old and the new one of an update once."""
    out = []
    for i, (t, list_) in enumerate(values(version).items()):
        n = len(list_) + 1
        out.append(f"UPDATE {table_of(i)} z SET v = o.v FROM {table_of(i)} o WHERE z.id BETWEEN {first_id} AND {first_id + n - 1} "
                   f"AND o.id = {first_id} + (z.id - {first_id} + 1) % {n};")
    return "\n".join(out)


def touch(version, first_id):
    """Updates that leave v as it is: what is in TOAST is then not sent."""
    return "\n".join(f"UPDATE {table_of(i)} SET note = 'touched' WHERE id >= {first_id};" for i, _ in enumerate(values(version)))


def delete_some(version, first_id):
    return "\n".join(f"DELETE FROM {table_of(i)} WHERE id = {first_id};" for i, _ in enumerate(values(version)))
