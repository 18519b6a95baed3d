
-- 8. Who sees what.
