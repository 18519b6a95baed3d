CALL registered(1, 'wrenn');
-- when
CALL open_login(10);
UPDATE selfservice_login_flows SET ui = form(4000006, 'wrenn', 'password_identifier') WHERE id = id(10);
