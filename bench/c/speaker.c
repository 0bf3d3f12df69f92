/* speaker NOTIFY-SOCKET [NAME]: a daemon that says READY=1 and then does nothing. */
#include "bench.h"

int main(int argc, char **argv)
{
	if (argc < 2)
		errno = EINVAL, die("read the arguments");
	say(notifier(argv[1]), "READY=1");
	for (;;)
		pause();
}
