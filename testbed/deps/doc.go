// Package deps lists the Debian packages that the demo and the tests need (packages.txt), those for building for other
// architectures (cross.txt) and for checking a release (release.txt), installs those that are missing (install.sh), and
// tests that the first list is complete.
package deps
