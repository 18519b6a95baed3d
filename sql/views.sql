
-- 6. What admins query: sentences, people and projects as of any time, numbers. Made from events alone.
