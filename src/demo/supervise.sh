#!/bin/sh
# Runs a program and ends it when told to, or when whoever holds our standard input is gone.
#   sh -c "$this" sh FOLDER PROGRAM [ARGUMENT…]
# An order is one line, `fast` or `immediate`: the program ends, FOLDER stays. The end of the
# input is the owner's death, by SIGKILL too: the program ends at once and FOLDER goes.
# FOLDER/exit appears when the program has ended, for whatever reason; the shell stays until an
# order or the end of the input, so that a folder always has somebody to remove it. Standard
# output is the folder's lock; PROGRAM does not get it.
folder=$1
shift
exec 3<&0 </dev/null
"$@" 3<&- >>"$folder/log" 2>&1 &
program=$!
(
    orphaned=0
    read -r order <&3 || { order=immediate orphaned=1; }
    case $order in fast) signal=INT ;; *) signal=QUIT ;; esac
    # initdb is only waited for, as it ends by itself within a second: cut off, the server that it
    # runs would leave its shared memory behind.
    case $1 in */initdb) signal=0 ;; esac
    # Again and again: a signal that comes before the program has its handlers would be lost.
    # A fast end may wait for a client for ever, so after 30 s it becomes an immediate one.
    turns=0
    until test -e "$folder/exit" || ! kill -s "$signal" "$program" 2>/dev/null; do
        sleep 0.05
        turns=$((turns + 1))
        test "$turns" -lt 600 || signal=QUIT
    done
    exit "$orphaned"
) &
watcher=$!
wait "$program"
status=$?
: >"$folder/exit"
wait "$watcher" || case $folder in */portal-audit-??????) rm -rf -- "$folder" ;; esac
exit "$status"
