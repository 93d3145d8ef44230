/* The ends of short conversations, timed where Python would take longer than the kernel does.
 *
 *   talk serve PORT                      answer until killed: datagrams with themselves, connections with a byte
 *   talk roundtrips ADDRESS PORT COUNT   datagrams of one byte, one after the other
 *   talk connections ADDRESS PORT COUNT  connect, read the byte, close; one after the other
 *
 * The last two print how many a second there are, by the median of their times: one of them that had to wait for a
 * processor does not count. A connection ends with a reset by the client, so that neither
 * end keeps a port in TIME_WAIT. A datagram without an answer is sent again after a second.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static int new_socket(int kind)
{
	int fd = socket(AF_INET, kind | SOCK_CLOEXEC, 0);

	if (fd < 0)
		fail("socket");
	return fd;
}

static int bound(int kind, struct sockaddr_in *to)
{
	int fd = new_socket(kind), yes = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	if (bind(fd, (struct sockaddr *)to, sizeof(*to)))
		fail("bind");
	if (kind == SOCK_STREAM && listen(fd, 128))
		fail("listen");
	return fd;
}

static void serve(struct sockaddr_in *at)
{
	struct pollfd ends[] = {{bound(SOCK_STREAM, at), POLLIN, 0}, {bound(SOCK_DGRAM, at), POLLIN, 0}};
	struct sockaddr_in from;
	char byte[64];

	puts("up");
	fflush(stdout);
	while (poll(ends, 2, -1) > 0) {
		if (ends[0].revents) {
			int fd = accept(ends[0].fd, NULL, NULL);

			if (fd >= 0 && send(fd, "!", 1, MSG_NOSIGNAL) < 0)
				perror("send");
			close(fd);
		}
		if (ends[1].revents) {
			socklen_t size = sizeof(from);
			ssize_t got = recvfrom(ends[1].fd, byte, sizeof(byte), 0, (struct sockaddr *)&from, &size);

			if (got > 0)
				sendto(ends[1].fd, byte, got, 0, (struct sockaddr *)&from, size);
		}
	}
}

static double now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec + at.tv_nsec / 1e9;
}

static void roundtrips(struct sockaddr_in *to, long count, double *took)
{
	struct timeval patience = {1, 0};
	int fd = new_socket(SOCK_DGRAM);
	char byte = 0;

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	if (connect(fd, (struct sockaddr *)to, sizeof(*to)))
		fail("connect");
	while (count > 0) {
		double started = now();

		if (send(fd, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1)
			took[--count] = now() - started;
	}
	close(fd);
}

static void connections(struct sockaddr_in *to, long count, double *took)
{
	struct linger reset = {1, 0};
	char byte;

	while (count-- > 0) {
		double started = now();
		int fd = new_socket(SOCK_STREAM);

		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		if (connect(fd, (struct sockaddr *)to, sizeof(*to)))
			fail("connect");
		if (recv(fd, &byte, 1, 0) != 1)
			fail("recv");
		close(fd);
		took[count] = now() - started;
	}
}

static int by_size(const void *one, const void *other)
{
	double a = *(const double *)one, b = *(const double *)other;

	return (a > b) - (a < b);
}

int main(int argc, char **argv)
{
	struct sockaddr_in place = {.sin_family = AF_INET};
	double *took;
	long count;

	if (argc == 3 && !strcmp(argv[1], "serve")) {
		place.sin_port = htons(atoi(argv[2]));
		serve(&place);
		return 1;
	}
	if (argc != 5 || inet_pton(AF_INET, argv[2], &place.sin_addr) != 1 || (count = atol(argv[4])) < 1) {
		fputs("talk serve PORT | roundtrips|connections ADDRESS PORT COUNT\n", stderr);
		return 2;
	}
	place.sin_port = htons(atoi(argv[3]));
	took = calloc(count, sizeof(*took));
	if (!took)
		fail("calloc");
	if (strcmp(argv[1], "connections"))
		roundtrips(&place, count, took);
	else
		connections(&place, count, took);
	qsort(took, count, sizeof(*took), by_size);
	printf("%.3f\n", 1 / took[count / 2]);
	return 0;
}
