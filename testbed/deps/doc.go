// Package deps lists the Debian packages that the demo and the tests need (packages.txt), installs those that are
// missing (install.sh), and tests that the list is complete.
package deps
