INSERT INTO t.texts (subject, note) VALUES
    ('controls', E'\x1b[31mred\x1b[0m \x01\x7f \r\t\n'),
    ('separators', 'a' || chr(8232) || 'b' || chr(8233) || chr(65279) || chr(8203)),
    ('bidi ' || chr(8238) || 'abc', chr(8294) || 'x' || chr(8297)),
    ('quotes '' " \ $$ ` ;--', '=cmd|''/C calc''!A0 %n ${jndi:ldap://x} <script>'),
    ('', ''),
    ('null', NULL),
    ('eyJhbGciOiJIUzI1NiJ9.e30.x', '-----BEGIN OPENSSH PRIVATE KEY-----'),
    ('hashes', '$argon2id$v=19$m=65536'),
    ('😀 שלום ünï', 'NULL');
-- Numbers keep every digit; what is no number of JSON is a string.
INSERT INTO t.texts (subject, number, real8, real4) VALUES
    ('nan', 'NaN', 'NaN', 'NaN'), ('infinity', 0, 'Infinity', '-Infinity'), ('zero', -0.000, '-0', '-0'),
    ('large', 1e300, 1e300, 1e30), ('small', 1e-30, 5e-324, 1e-45),
    ('plain', 1.50, 0.1, 0.25), ('digits', 12345678901234567890.123456789, 0.1::float8 + 0.2::float8, 16777217);
-- Labels, codes, success, names.
INSERT INTO t.texts (subject, code, state, note, flag, padded, kind) VALUES
    ('ok', 0, 'Active', 'not shown as an error', TRUE, 'ab', 'known'),
    ('failed', 3, 'ÄRGER', 'the reason', FALSE, '', 'unknown'),
    ('other', 7, NULL, NULL, NULL, NULL, NULL),
    ('null code', NULL, NULL, 'a code that is not there is not "not 3"', NULL, NULL, NULL);
