#!/usr/bin/env bash
# Runs a command until standard input closes, so that a server does not outlive the test that started it.
"$@" </dev/null &
child=$!
read -r _
kill "$child" 2>/dev/null
wait "$child"
