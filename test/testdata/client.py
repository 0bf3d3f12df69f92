# client.c in Python, by python3-systemd.
import os
import time

from systemd import daemon

usec = int(os.environ.get("WATCHDOG_USEC", "0"))
handed = daemon.listen_fds_with_names()
assert daemon.notify("STATUS=process %d" % os.getpid())
name = text = "-"
if handed:
    (fd, name), = handed.items()
    text = os.pread(fd, 15, 0).decode()
else:
    fd = os.memfd_create("state")
    os.write(fd, b"kept")
    assert daemon.notify("FDSTORE=1\nFDNAME=state", fds=[fd])
assert daemon.notify("READY=1\nMAINPID=%d" % os.getpid())
print("watchdog", usec, "handed", len(handed), name, text, flush=True)
while True:
    time.sleep(usec / 4e6 if usec else 0.1)
    assert daemon.notify("WATCHDOG=1")
