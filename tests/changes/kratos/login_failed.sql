CALL registered(1, 'wrenn');
-- when
CALL open_login(10);
-- A wrong password, twice in the same words: two rows that are the same, and two failures.
CALL refuse(10, 4000006, 'wrenn');
CALL refuse(10, 4000006, 'wrenn');
-- By the other identifier, in other letters.
CALL refuse(10, 4000006, ' Wrenn@Example.net ');
-- Nobody's name; typed twice it is seen to be the same.
CALL refuse(10, 4000006, 'wren');
CALL refuse(10, 4000006, 'Wren');
-- A password in the wrong box.
CALL refuse(10, 4000006, 'canary-typed-password');
-- No failures: an empty field, already logged in, information, an expired flow and the new one that tells it.
CALL refuse(10, 4000002, 'wrenn');
CALL refuse(10, 4000001, 'wrenn');
CALL refuse(10, 1010001, 'wrenn');
CALL open_login(11, 'api');
CALL refuse(11, 4010001);
-- Nothing was typed.
CALL refuse(11, 4000037);
-- A program, again.
CALL refuse(11, 4000006, 'wrenn');
