-- What a real server says of its own values: psql -qAt -v scale=1 -f value_text.sql > tests/fixtures/value_text/postgres.copy
-- A line: type, element type, binary form in hex, text; in COPY's text format. scale multiplies the random ones.
\set ON_ERROR_STOP 1
SET client_min_messages = warning;
SET datestyle = 'ISO, MDY'; SET intervalstyle = postgres; SET bytea_output = hex; SET extra_float_digits = 1; SET timezone = 'UTC';
CREATE EXTENSION IF NOT EXISTS hstore; CREATE EXTENSION IF NOT EXISTS ltree;
SELECT setseed(0.5) \g /dev/null
CREATE TEMP TABLE v (n serial, type text, elem text DEFAULT 'other', bin bytea, txt text);

INSERT INTO v (type, bin, txt) SELECT 'bool', boolsend(x), boolout(x)::text FROM unnest('{t,f}'::bool[]) x;
INSERT INTO v (type, bin, txt) SELECT 'int16', int2send(x), x::text FROM unnest('{0,1,-1,10,32767,-32768}'::int2[]) x;
INSERT INTO v (type, bin, txt) SELECT 'int32', int4send(x), x::text FROM unnest('{0,1,-1,10,2147483647,-2147483648}'::int4[]) x;
INSERT INTO v (type, bin, txt) SELECT 'int64', int8send(x), x::text FROM unnest('{0,1,-1,99,9223372036854775807,-9223372036854775808}'::int8[]) x;
INSERT INTO v (type, bin, txt) SELECT 'oid', oidsend(x), x::text FROM unnest('{0,1,4294967295}'::oid[]) x;
INSERT INTO v (type, bin, txt) SELECT 'lsn', pg_lsn_send(x), x::text FROM unnest('{0/0,16/B374D848,FFFFFFFF/FFFFFFFF}'::pg_lsn[]) x;

-- floats: special ones, powers of two and ten, neighbours of them, halfway cases, random bits and random short decimals
CREATE TEMP TABLE f8 (x float8);
INSERT INTO f8 VALUES ('NaN'), ('Infinity'), ('-Infinity'), ('0'), ('-0'), (1e23), (9.5e-3), (5e-324), ('1.7976931348623157e308'), ('2.2250738585072014e-308'),
	('2.225073858507201e-308'), (1e15), (1e14), (123456789012345), (1234567890123456), (0.0001), (0.00001), (0.1), (0.3), (1.0/3), (9007199254740993),
	(9007199254740991), (4.35), (0.99999999999999989), (8.41e21), (2.0e-44), (5.684341886080802e-14), (9e15), (99999999999999.9), (999999999999999.9);
INSERT INTO f8 SELECT power(2::float8, e) FROM generate_series(-1074, 1023) e WHERE e % greatest(1, 5 / :scale) = 0;
INSERT INTO f8 SELECT ('1e' || e)::float8 FROM generate_series(-323, 308) e WHERE e % greatest(1, 3 / :scale) = 0;
INSERT INTO f8 SELECT x * (1 + s * 2.220446049250313e-16) FROM f8, (VALUES (1), (-1)) d(s) WHERE x > 1e-300 AND x < 1e300 AND random() < 0.3;
INSERT INTO f8 SELECT ('x' || encode(decode(lpad(to_hex((random() * 2047)::int << 4 | (random() * 15)::int), 4, '0'), 'hex') || int4send((random() * 2147483647)::int) || int2send((random() * 32767)::int2), 'hex'))::bit(64)::bigint::text::float8
	FROM generate_series(1, 20 * :scale);
INSERT INTO f8 SELECT (CASE WHEN random() < 0.5 THEN -1 ELSE 1 END) * random() * power(10::float8, (random() * 600 - 300)::int) FROM generate_series(1, 400 * :scale);
INSERT INTO f8 SELECT ((random() * 1000000)::int || 'e' || (random() * 40 - 20)::int)::float8 FROM generate_series(1, 200 * :scale);
INSERT INTO v (type, bin, txt) SELECT 'float64', float8send(x), x::text FROM f8;
CREATE TEMP TABLE f4 (x float4);
INSERT INTO f4 VALUES ('NaN'), ('Infinity'), ('-Infinity'), ('0'), ('-0'), (1e-45), (3.4028235e38), (1.1754944e-38), (1.17549e-38), (16777216), (16777217), (1e6), (1e5), (999999), (1234567),
	(0.1), (0.0001), (0.00001), (33554436), (8589973000), (3.4e10), (2.3e-5);
INSERT INTO f4 SELECT power(2::float8, e)::float4 FROM generate_series(-149, 127) e;
INSERT INTO f4 SELECT ('1e' || e)::float4 FROM generate_series(-45, 38) e;
INSERT INTO f4 SELECT ((CASE WHEN random() < 0.5 THEN -1 ELSE 1 END) * random() * power(10::float8, (random() * 72 - 35)::int))::float4 FROM generate_series(1, 300 * :scale);
INSERT INTO f4 SELECT ((random() * 10000)::int || 'e' || (random() * 20 - 10)::int)::float4 FROM generate_series(1, 100 * :scale);
INSERT INTO v (type, bin, txt) SELECT 'float32', float4send(x), x::text FROM f4;

CREATE TEMP TABLE num (x numeric);
INSERT INTO num VALUES ('NaN'), ('Infinity'), ('-Infinity'), ('0'), ('0.0'), ('0.00000'), ('-0.1'), ('1'), ('-1'), ('10000'), ('9999'), ('10000.0001'), ('100000000'), ('0.0001'), ('0.00001'),
	('1e-16383'), ('1e1000'), ('1e-20'), ('123456789012345678901234567890.123456789012345678901234567890'), ('-99999999999999999999'), ('1.10'), ('1000000000000.000'), ('10.010'), ('0.000100000000');
INSERT INTO num SELECT (repeat('9', n) || '.' || repeat('1', m))::numeric FROM generate_series(1, 12) n, generate_series(1, 12) m;
INSERT INTO num SELECT (((random() - 0.5) * 1e15)::numeric * power(10::numeric, (random() * 30 - 15)::int))::numeric FROM generate_series(1, 100 * :scale);
INSERT INTO num SELECT round(((random() - 0.5) * 1e6)::numeric, (random() * 12)::int) FROM generate_series(1, 200 * :scale);
INSERT INTO v (type, bin, txt) SELECT 'numeric', numeric_send(x), x::text FROM num;

INSERT INTO v (type, bin, txt) SELECT 'date', date_send(x), x::text FROM (
	SELECT unnest('{infinity,-infinity,2000-01-01,1999-12-31,1970-01-01,0001-01-01,0001-12-31 BC,0001-01-01 BC,0044-03-15 BC,4713-01-01 BC,4714-11-24 BC,5874897-12-31,10000-01-01,9999-12-31,2024-02-29,1900-02-28,1900-03-01,0400-02-29}'::date[]) x
	UNION ALL SELECT '2000-01-01'::date + (random() * 2000000 - 900000)::int FROM generate_series(1, 300 * :scale)
	UNION ALL SELECT '2000-01-01'::date + (random() * 2000000000)::int FROM generate_series(1, 30 * :scale)) q;
CREATE TEMP TABLE t (x time);
INSERT INTO t VALUES ('00:00'), ('24:00:00'), ('23:59:59.999999'), ('00:00:00.000001'), ('12:34:56.1'), ('01:02:03.12'), ('10:00:00.120000');
INSERT INTO t SELECT '00:00'::time + random() * interval '1 day' FROM generate_series(1, 100 * :scale);
INSERT INTO v (type, bin, txt) SELECT 'time', time_send(x), x::text FROM t;
INSERT INTO v (type, bin, txt) SELECT 'timetz', timetz_send(x), x::text FROM (
	SELECT unnest('{00:00+00,24:00:00-15:59:59,10:00:00+05:30,10:00:00-03:30,10:00:00.5+15:59:59,10:00:00+00:00:01,10:00:00-00:00:30,10:00-00:01,10:00+14}'::timetz[]) x
	UNION ALL SELECT (t.x || (CASE WHEN random() < 0.5 THEN '+' ELSE '-' END) || lpad((random() * 15)::int::text, 2, '0') || ':' || lpad((random() * 59)::int::text, 2, '0'))::timetz FROM t) q;
CREATE TEMP TABLE ts (x timestamp);
INSERT INTO ts VALUES ('infinity'), ('-infinity'), ('2000-01-01'), ('1999-12-31 23:59:59.999999'), ('1970-01-01'), ('0001-01-01'), ('0001-12-31 23:59:59.9 BC'), ('0044-03-15 10:11:12.000001 BC'),
	('4714-11-24 00:00:00 BC'), ('294276-12-31 23:59:59.999999'), ('10000-01-01 00:00:00.1'), ('9999-12-31 23:59:59'), ('2026-01-31 10:00:00.123456'), ('2024-02-29 12:00'), ('0005-02-29 BC');
INSERT INTO ts SELECT '2000-01-01'::timestamp + (random() - 0.4) * interval '4000 years' FROM generate_series(1, 300 * :scale);
INSERT INTO ts SELECT '2000-01-01'::timestamp + random() * interval '290000 years' FROM generate_series(1, 30 * :scale);
INSERT INTO v (type, bin, txt) SELECT 'timestamp', timestamp_send(x), x::text FROM ts;
INSERT INTO v (type, bin, txt) SELECT 'timestamptz', timestamptz_send(x), x::text FROM (SELECT x AT TIME ZONE 'UTC' AS x FROM ts) q;
INSERT INTO v (type, bin, txt) SELECT 'interval', interval_send(x), x::text FROM (
	SELECT unnest(ARRAY['0', '1 year', '-1 year', '1 mon', '2 mons', '-1 mon', '1 day', '-1 day', '2 days', '1 sec', '-1 sec', '0.000001 sec', '-0.000001 sec', '1 year 2 mons 3 days 04:05:06.7', '-1 year -2 mons +3 days -04:05:06.7',
		'-1 year +2 days', '1 year -2 days', '-1 mon +04:05:06', '1 day -00:00:01', '-1 day +00:00:01', '-1 days', '100000:00:00', '178000000 years', '-178000000 years', '2147483647 days', '-2147483648 days', '11 mons 30 days',
		'13 mons', '-13 mons', '1 year -1 day +1 sec', '-1 year -1 day', '9223372036854.775807 sec', '-9223372036854.775808 sec', '2562047788:00:54.775807']::interval[]) x
	UNION ALL SELECT make_interval(years => (random() * 4 - 2)::int, months => (random() * 4 - 2)::int, days => (random() * 4 - 2)::int, secs => round((random() * 10 - 5)::numeric, (random() * 6)::int)::float8 * (random() * 2)::int) FROM generate_series(1, 300 * :scale)
	) q;

CREATE TEMP TABLE s (x text);
INSERT INTO s VALUES (''), ('a'), ('NULL'), ('null'), ('nUll '), ('a b'), (' a'), ('a,b'), ('a;b'), ('{a}'), ('"'), ('\'), ('\\"'), (E'tab\there'), (E'line\nfeed'), (E'\r\v\f\b'), ('ünï ✓ 漢字 🎈'), ('(1,2]'), ('[a'), ('[0:1]={a,b}'), ('''quoted'''), ('nulls'), (E'\u00a0'), ('$1'), ('\N'), ('\.');
INSERT INTO v (type, bin, txt) SELECT 'text', textsend(x), x FROM s;
INSERT INTO v (type, bin, txt) SELECT 'char', bpcharsend(x::char(12)), bpcharout(x::char(12))::text FROM s WHERE length(x) <= 12;
INSERT INTO v (type, bin, txt) SELECT 'bytes', byteasend(x), x::text FROM (SELECT convert_to(x, 'UTF8') AS x FROM s UNION ALL SELECT decode(string_agg(lpad(to_hex(i), 2, '0'), ''), 'hex') FROM generate_series(0, 255) i) q;
INSERT INTO v (type, bin, txt) SELECT 'uuid', uuid_send(x), x::text FROM (SELECT unnest('{00000000-0000-0000-0000-000000000000,ffffffff-ffff-ffff-ffff-ffffffffffff,a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}'::uuid[]) x) q;
INSERT INTO v (type, bin, txt) SELECT 'json', json_send(x), x::text FROM (SELECT to_json(x) AS x FROM s UNION ALL SELECT '{"a" : [1, 2.0,null], "a":3 }'::json) q;
INSERT INTO v (type, bin, txt) SELECT 'jsonb', jsonb_send(x), x::text FROM (SELECT to_jsonb(x) AS x FROM s UNION ALL SELECT '{"b" : [1, 2.00,null,{}], "a":3 }'::jsonb) q;
INSERT INTO v (type, bin, txt) SELECT 'jsonpath', jsonpath_send(x), x::text FROM (SELECT unnest('{$.a[*],"$.\"x y\" ? (@ > 1)"}'::jsonpath[]) x) q;
INSERT INTO v (type, bin, txt) SELECT 'ltree', ltree_send(x), x::text FROM (SELECT unnest('{a.b.c,"",x_1}'::ltree[]) x) q;
INSERT INTO v (type, bin, txt) SELECT 'varbit', varbit_send(x), x::text FROM (SELECT unnest(ARRAY[B'', B'0', B'1', B'0101', B'11111111', B'000000001', B'1010101010101010101']::varbit[]) x) q;
INSERT INTO v (type, bin, txt) SELECT 'bit', bit_send(x), x::text FROM (SELECT unnest(ARRAY[B'0101', B'1000']::bit(4)[]) x) q;
INSERT INTO v (type, bin, txt) SELECT 'point', point_send(x), x::text FROM (SELECT unnest(ARRAY['(0,0)', '(1.5,-2e300)', '(NaN,Infinity)', '(-0,1e-7)']::point[]) x) q;

CREATE TEMP TABLE ip (x inet);
INSERT INTO ip VALUES ('0.0.0.0'), ('0.0.0.0/0'), ('10.1.2.3'), ('10.1.2.3/8'), ('255.255.255.255/31'), ('::'), ('::1'), ('::/0'), ('::1.2.3.4'), ('::ffff:1.2.3.4'), ('::ffff:1.2.3.4/96'), ('::1:2'), ('::0.1.0.0'), ('::2'), ('1::'), ('1::8'), ('1:0:0:2:0:0:0:3'),
	('1:0:0:2::3:4'), ('2001:db8::1/64'), ('fe80::1234:5678:9abc:def0'), ('1:2:3:4:5:6:7:8'), ('0:2:3:4:5:6:7:8'), ('1:2:3:4:5:6:7:0'), ('0:0:3:4:5:6:7:8'), ('1:2:3:4:5:6:0:0'), ('::fffe:1.2.3.4'), ('0:0:0:0:0:1:2:3'), ('::5:0'), ('::0:5'), ('abcd:0:0:1:0:0:0:0');
INSERT INTO ip SELECT (SELECT string_agg(CASE WHEN random() < 0.6 THEN '0' ELSE to_hex((random() * 65535 + i - i + g - g)::int) END, ':') FROM generate_series(1, 8) i)::inet FROM generate_series(1, 100 * :scale) g;
INSERT INTO v (type, bin, txt) SELECT 'inet', inet_send(x), inet_out(x)::text FROM ip;
INSERT INTO v (type, bin, txt) SELECT 'cidr', cidr_send(x), cidr_out(x)::text FROM (SELECT network(x) AS x FROM ip) q;
INSERT INTO v (type, bin, txt) SELECT 'macaddr', macaddr_send(x), x::text FROM (SELECT unnest('{00:00:00:00:00:00,08:00:2b:01:02:ff}'::macaddr[]) x) q;
INSERT INTO v (type, bin, txt) SELECT 'macaddr8', macaddr8_send(x), x::text FROM (SELECT unnest('{00:00:00:00:00:00:00:00,08:00:2b:01:02:03:04:fF}'::macaddr8[]) x) q;

INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'text', array_send(x), x::text FROM (SELECT array_agg(x) AS x FROM s UNION ALL SELECT ARRAY[x] FROM s UNION ALL SELECT ARRAY[NULL, x, NULL] FROM s
	UNION ALL SELECT '{}'::text[] UNION ALL SELECT '[2:3]={a,b}'::text[] UNION ALL SELECT '[0:0][-1:1]={{a,NULL,""}}'::text[] UNION ALL SELECT '{{a,b},{c,d}}'::text[] UNION ALL SELECT '{{{a},{b}},{{c},{d}}}'::text[]
	UNION ALL SELECT '[-5:-4]={a,b}'::text[] UNION ALL SELECT '{{{{{{1,2}}}}}}'::text[] UNION ALL SELECT '[1:2][2:2]={{1},{2}}'::text[]) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'int32', array_send(x), x::text FROM (SELECT array_agg(i) AS x FROM generate_series(-5, 5) i UNION ALL SELECT '{{1,2,3},{4,5,6}}'::int[] UNION ALL SELECT '{NULL,NULL}'::int[] UNION ALL SELECT '[2147483645:2147483646]={1,2}'::int[]) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'bool', array_send(x), x::text FROM (SELECT '{t,f,NULL}'::bool[] AS x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'numeric', array_send(x), x::text FROM (SELECT array_agg(x) AS x FROM num WHERE length(x::text) < 40) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'float64', array_send(x), x::text FROM (SELECT array_agg(x) AS x FROM (SELECT x FROM f8 LIMIT 50) f) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'timestamp', array_send(x), x::text FROM (SELECT array_agg(x) AS x FROM (SELECT x FROM ts LIMIT 20) f) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'timestamptz', array_send(x), x::text FROM (SELECT array_agg(x AT TIME ZONE 'UTC') AS x FROM (SELECT x FROM ts LIMIT 20) f) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'date', array_send(x), x::text FROM (SELECT '{2026-01-31,infinity,0044-03-15 BC}'::date[] AS x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'interval', array_send(x), x::text FROM (SELECT ARRAY['1 day', '-1 year +00:00:01', '1 sec']::interval[] AS x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'bytes', array_send(x), x::text FROM (SELECT ARRAY['\x', '\x00ff', NULL]::bytea[] AS x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'jsonb', array_send(x), x::text FROM (SELECT ARRAY['{"a": "b\"c"}', 'null', '[]']::jsonb[] AS x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'uuid', array_send(x), x::text FROM (SELECT ARRAY['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11']::uuid[] AS x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'point', array_send(x), x::text FROM (SELECT ARRAY['(1,2)', NULL]::point[] AS x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'hstore', array_send(x), x::text FROM (SELECT ARRAY['a=>1', '']::hstore[] AS x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'array', 'inet', array_send(x), x::text FROM (SELECT array_agg(x) AS x FROM ip) q;

INSERT INTO v (type, elem, bin, txt) SELECT 'range', 'int32', range_send(x), x::text FROM (SELECT unnest(ARRAY['[1,5)', 'empty', '(,)', '[1,)', '(,5)', '[-1,1]']::int4range[]) x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'range', 'numeric', range_send(x), x::text FROM (SELECT unnest(ARRAY['[1.10,5]', '(1,2)', '(1,2]', '[1,2)', '(,2]']::numrange[]) x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'range', 'timestamp', range_send(x), x::text FROM (SELECT unnest(ARRAY['[2026-01-01,2026-01-31 10:00:00.5)', '[-infinity,infinity]', '(,infinity)']::tsrange[]) x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'range', 'timestamptz', range_send(x), x::text FROM (SELECT unnest(ARRAY['[2026-01-01,2026-01-31 10:00:00.5)']::tstzrange[]) x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'range', 'date', range_send(x), x::text FROM (SELECT unnest(ARRAY['[2026-01-01,2026-01-31]', '[0044-03-15 BC,infinity]']::daterange[]) x) q;
CREATE TYPE pg_temp.textrange AS RANGE (subtype = text, collation = "C");
INSERT INTO v (type, elem, bin, txt) SELECT 'range', 'text', range_send(x), x::text FROM (SELECT pg_temp.textrange(x, NULL, '[]') AS x FROM s UNION ALL SELECT pg_temp.textrange(NULL, x, '()') FROM s) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'multirange', 'int32', multirange_send(x), x::text FROM (SELECT unnest(ARRAY['{}', '{[1,5)}', '{[1,3),[5,7)}', '{(,1),[9,)}']::int4multirange[]) x) q;
INSERT INTO v (type, elem, bin, txt) SELECT 'multirange', 'timestamp', multirange_send(x), x::text FROM (SELECT unnest(ARRAY['{[2026-01-01,2026-01-02),[2026-02-01,2026-02-02 10:00)}']::tsmultirange[]) x) q;
INSERT INTO v (type, bin, txt) SELECT 'hstore', hstore_send(x), x::text FROM (SELECT unnest(ARRAY['', 'a=>1', 'a=>NULL', '"a b"=>"c\"d\\e", x=>""']::hstore[]) x UNION ALL SELECT hstore(x, x) FROM s) q;

COPY (SELECT type, elem, encode(bin, 'hex'), txt FROM v ORDER BY n) TO STDOUT;
