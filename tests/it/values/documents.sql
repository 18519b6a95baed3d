-- What json takes and jsonb does not, or not as it is.
INSERT INTO t.documents (json) VALUES
    ('{"a": "\u0000"}'), ('["\ud800"]'), ('{"a": 1, "b": {"c": 1, "c": 2}}'), ('[1e400]'), ('[1e-20000]'), ('[-0, -0.0]'),
    (('{"a": 1.50, "b": 12345678901234567890.5, "c": null, "d": "\"\\ \n <script> ' || chr(8232) || chr(8238) || '"}')::json),
    ('null'), ('"text"'), ('{"deep": {"token": "eyJhbGciOi.x.y"}, "list": ["ghp_abc", "x ghp_abc"], "nul": "\u0000"}');
INSERT INTO t.documents (json) VALUES
    (('{"depth": ' || repeat('[', 5) || repeat(']', 5) || '}')::json), ((repeat('[', 200) || repeat(']', 200))::json);
-- Paths: one, none, several, null; a name that is no string; numbers that a reader of JSON would round.
INSERT INTO t.documents (document) VALUES
    ('{"name": "first", "one": "x", "some": [1, "two", {"three": [null, true]}]}'),
    ('{"name": 7, "one": null, "some": []}'),
    ('{"name": null}'),
    ('{"name": {"a": 1.10}, "one": 12345678901234567890.125, "some": [1e300, 0.1, 100000000000000000000, "-----BEGIN RSA PRIVATE KEY-----"]}'),
    ('["ory_st_x", {"$2b$10$x": 1}]'),
    (NULL);
