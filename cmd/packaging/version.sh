#!/bin/sh
# Prints the version of this tree: 0.8.0 at the tag v0.8.0; before it 0.8.0~COMMITS+gCOMMIT, which dpkg and rpm sort
# between earlier commits and 0.8.0; "+changes" if tracked files differ. What comes next is the changelog's first entry.
set -eu
cd "$(dirname "$0")"
next=$(sed -n '1s/^duet (\(.*\)) .*/\1/p' changelog)

commit=$(git rev-parse --short=12 HEAD 2>/dev/null) || { # a tree without its history
	echo "$next~0"
	exit
}
version=$next
git tag --points-at HEAD | grep -qxF "v$next" || version="$next~$(git rev-list --count HEAD)+g$commit"
[ -z "$(git status --porcelain --untracked-files=no)" ] || version="$version+changes"
echo "$version"
