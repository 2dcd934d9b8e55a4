#!/bin/sh
# Lists the packages that are not tied to Linux: all but the testbed, whose hosts are namespaces.
set -eu
go list duet/... | grep -v '^duet/testbed'
