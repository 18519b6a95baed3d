INSERT INTO "t y"."all ""of"" them" VALUES
    (DEFAULT, -32768, 2147483647, -9223372036854775808, 'NaN', 'NaN', '-Infinity', -12.34, TRUE, 'ab', 'v', E'a\tb\\', 'x', 'name',
     '\x00ff5c', '2026-04-03 14:06:07.123456', '2026-04-03 14:06:07.123456+09', '2026-04-03', '24:00:00', '14:06:07.5+05:30',
     '1 year -2 mons 3 days 04:05:06.7', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{"a" :1.0}', '{"a" :1.0}', '10.0.0.1/8', '10.0.0.0/8',
     '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '10101', '101', '(1.5,-0.3)', '((0,0),(1,1),(1,0))', 'a fat cat:3A', 'fat & (cat | !rat)',
     '[1,5]', '["2026-01-01 00:00:00+09",infinity)', '{[1,2],[5,6]}', 'o''k "quoted"', ROW(1, 'x "y", (z)'), 12.5,
     '{{1,NULL},{3,4}}', ARRAY['a,b', NULL, 'NULL', '', '"q"', E'\\'], ARRAY['\x00ff'::bytea], ARRAY['2026-04-03 00:00:00+00'::timestamptz],
     ARRAY[ROW(1, NULL)::"t y".pair], 4294967295, 'pg_class', '16/B374D848', '10:20:10,14,15', '$.a[*] ? (@ > 1)', '{"", sad}');
INSERT INTO "t y"."all ""of"" them" (n, r, d, ts, tz, da, iv, t, j, r4, ai) VALUES
    (0.1, 0.1, 0.1, 'infinity', '-infinity', 'infinity', '-178000000 years', '', 'null', 'empty', '{}'),
    (-0.000000000000000000001, 1e-45, '-0', '294276-12-31 23:59:59.999999', '4713-01-02 00:00:00+00 BC', '5874897-12-31', '00:00:00', NULL, NULL, NULL, NULL),
    (('1' || repeat('0', 131071))::numeric, 3.4028235e38, 1.7976931348623157e308, '4713-01-01 00:00:00 BC', '294276-12-31 23:59:59+00', '4713-01-01 BC', '1 microsecond', NULL, NULL, NULL, NULL);
UPDATE "t y"."all ""of"" them" SET i4 = 1 WHERE id IN (SELECT max(id) FROM "t y"."all ""of"" them" WHERE i2 IS NOT NULL);
