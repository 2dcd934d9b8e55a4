// Package fdstore keeps the listening sockets of volumes beyond the life of this process, in systemd's file descriptor
// store: what connects while the daemon is killed, restarted or upgraded waits in the socket's backlog and is served as
// soon as the next run accepts. QEMU would otherwise be refused, and then it sleeps 1, 2, 4, 8, 16 s between its
// attempts.
//
// A Store is the nbd.Keeper of a daemon. Without a service manager its sockets live as long as the process.
package fdstore
