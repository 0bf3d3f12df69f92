# A daemon that talks by python3-sdnotify, which stores nothing.
import os
import time

import sdnotify

usec = int(os.environ.get("WATCHDOG_USEC", "0"))
n = sdnotify.SystemdNotifier(debug=True)
n.notify("STATUS=process %d" % os.getpid())
n.notify("READY=1\nMAINPID=%d" % os.getpid())
print("watchdog", usec, "handed 0 - -", flush=True)
while True:
    time.sleep(usec / 4e6 if usec else 0.1)
    n.notify("WATCHDOG=1")
