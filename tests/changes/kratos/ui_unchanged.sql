CALL registered(1, 'wrenn');
ALTER TABLE selfservice_login_flows ALTER ui SET STORAGE EXTERNAL;
-- when
CALL open_login(10);
UPDATE selfservice_login_flows SET ui = form(4000006, 'wrenn') || jsonb_build_object('x', repeat('x', 10000)) WHERE id = id(10);
-- These do not send the form: not one is a failure.
CALL submit(10);
UPDATE selfservice_login_flows SET updated_at = utc() WHERE id = id(10);
CALL accept(10, 'password');
CALL open_session(20, 1);
