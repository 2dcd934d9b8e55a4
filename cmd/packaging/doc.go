// Package packaging holds what turns the programs into packages: `make packages` and `make release` call build.sh here.
//
// nfpm.yaml lists what is in a package. deb and rpm hold the scripts that run when one is installed and removed; units,
// default, apparmor, selinux and man what goes along with the programs; bill writes what the programs are made of. The
// changelog's first entry says which version comes next. nfpm is pinned in tools.mod, so it is no dependency of Duet.
package packaging
