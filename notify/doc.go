// Package notify speaks the sd_notify wire protocol: the datagrams by which a daemon
// tells its service manager, over the socket named in NOTIFY_SOCKET, that it is ready,
// reloading, stopping or alive. It owns the bytes, the credentials and the descriptors
// of a datagram; it never decides what the words mean.
//
// A daemon sends with a [Notifier]. A service manager receives with a [Listener], which
// authenticates every datagram by the kernel's own word (SCM_CREDENTIALS and, since
// Linux 6.5, SCM_PIDFD) and allocates nothing while it receives. [Message] parses the
// text alone and needs no socket.
//
// The protocol is sd_notify(3) of systemd, read up to version 261. Only Unix sockets are
// spoken: path and abstract addresses, not vsock.
package notify
