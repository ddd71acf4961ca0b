#!/bin/sh
# timed.sh DIR NAME COMMAND...: runs the command and notes its seconds in DIR/times.txt.
set -eu
dir=$1 name=$2
shift 2
start=$(date +%s)
echo "== $name"
"$@"
mkdir -p "$dir"
echo "$name: $(($(date +%s) - start)) s" >>"$dir/times.txt"
