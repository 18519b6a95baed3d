CREATE SCHEMA "t y";
CREATE TYPE "t y".mood AS ENUM ('', 'sad', 'o''k "quoted"');
CREATE TYPE "t y".pair AS (a INT, b TEXT);
CREATE DOMAIN "t y".small AS NUMERIC(6, 2) CHECK (VALUE < 1000);
CREATE TYPE "t y".moods AS RANGE (subtype = TIMESTAMPTZ);
CREATE TABLE "t y"."all ""of"" them" (
    id SERIAL PRIMARY KEY, i2 SMALLINT, i4 INT, i8 BIGINT, n NUMERIC, r REAL, d DOUBLE PRECISION, m MONEY, b BOOLEAN,
    c CHAR(5), v VARCHAR(9), t TEXT, ch "char", nm NAME, by BYTEA, ts TIMESTAMP, tz TIMESTAMPTZ, da DATE, ti TIME, tt TIMETZ,
    iv INTERVAL, u UUID, j JSON, jb JSONB, ip INET, ci CIDR, ma MACADDR, m8 MACADDR8, bi BIT(5), vb BIT VARYING(9),
    po POINT, pl POLYGON, tv TSVECTOR, tq TSQUERY, r4 INT4RANGE, rt "t y".moods, mr INT4MULTIRANGE, en "t y".mood,
    co "t y".pair, sm "t y".small, ai INT[], at TEXT[], ab BYTEA[], az TIMESTAMPTZ[], ac "t y".pair[], oi OID, rc REGCLASS,
    ls PG_LSN, sn TXID_SNAPSHOT, jp JSONPATH, mo "t y".mood[]
);
ALTER TABLE "t y"."all ""of"" them" REPLICA IDENTITY FULL;
