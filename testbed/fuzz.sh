#!/bin/sh
# Fuzzes each target of the module for the time given, one after the other.
set -eu
time=$1
go list -tags libvirt_dlopen -f '{{.Dir}}' duet/... | while read -r dir; do
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go 2>/dev/null | while read -r target; do
		echo "== $dir $target"
		go test -tags libvirt_dlopen -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$dir"
	done
done
