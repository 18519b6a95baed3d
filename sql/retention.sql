
-- 7. Retention and erasure.
