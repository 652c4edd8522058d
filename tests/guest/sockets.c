/* Internet sockets within the machine, and datagrams to a path: each line printed is the same on Linux. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <net/if.h>
#include <linux/sockios.h>

#include "say.h"

static volatile int pipes;
static char buffer[1 << 20];

static void note(int signo)
{
    pipes++;
}

static int fresh(int family, int kind)
{
    return socket(family, kind, 0);
}

static struct sockaddr_in v4(const char *host, int port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, host, &a.sin_addr);
    return a;
}

static struct sockaddr_in6 v6(const char *host, int port)
{
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    inet_pton(AF_INET6, host, &a.sin6_addr);
    return a;
}

static int port_of(int fd)
{
    struct sockaddr_in6 a;
    socklen_t len = sizeof a;
    getsockname(fd, (void *)&a, &len);
    return ntohs(a.sin6_port);
}

static int bind4(int fd, const char *host, int port)
{
    struct sockaddr_in a = v4(host, port);
    return bind(fd, (void *)&a, sizeof a);
}

static int bind6(int fd, const char *host, int port)
{
    struct sockaddr_in6 a = v6(host, port);
    return bind(fd, (void *)&a, sizeof a);
}

static int connect4(int fd, const char *host, int port)
{
    struct sockaddr_in a = v4(host, port);
    return connect(fd, (void *)&a, sizeof a);
}

static int connect6(int fd, const char *host, int port)
{
    struct sockaddr_in6 a = v6(host, port);
    return connect(fd, (void *)&a, sizeof a);
}

/* An address without its port, which differs from run to run. */
static void name(const char *what, int fd, int peer)
{
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof a;
    char text[64] = "?";
    int result = peer ? getpeername(fd, (void *)&a, &len) : getsockname(fd, (void *)&a, &len);
    if (result < 0) {
        printf("%s: %s\n", what, strerrorname_np(errno));
        return;
    }
    if (a.ss_family == AF_INET)
        inet_ntop(AF_INET, &((struct sockaddr_in *)&a)->sin_addr, text, sizeof text);
    else
        inet_ntop(AF_INET6, &((struct sockaddr_in6 *)&a)->sin6_addr, text, sizeof text);
    printf("%s: family %d len %d %s port %s\n", what, a.ss_family, (int)len, text,
           ((struct sockaddr_in *)&a)->sin_port ? "some" : "none");
}

static void look(const char *what, int fd)
{
    struct pollfd p = {.fd = fd, .events = 0x2fff};
    poll(&p, 1, 0);
    printf("%s: poll %#x\n", what, p.revents);
}

static int option(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof value;
    return getsockopt(fd, level, name, &value, &len) < 0 ? -errno : value;
}

static int set(int fd, int level, int name, int value)
{
    return setsockopt(fd, level, name, &value, sizeof value);
}

/* A connected pair: fd[0] connected, fd[1] was accepted. Gives the listener. */
static int connected(int fd[2])
{
    int listener = fresh(AF_INET, SOCK_STREAM);
    bind4(listener, "127.0.0.1", 0);
    listen(listener, 5);
    fd[0] = fresh(AF_INET, SOCK_STREAM);
    connect4(fd[0], "127.0.0.1", port_of(listener));
    fd[1] = accept(listener, 0, 0);
    return listener;
}

/* What one side sends has arrived at once here; on Linux within a moment. */
static void settle(void)
{
    usleep(20000);
}

static void names_and_errors(void)
{
    puts("-- names and errors");
    int a = fresh(AF_INET, SOCK_STREAM), b = fresh(AF_INET, SOCK_STREAM);
    look("new", a);
    name("new", a, 0);
    name("new peer", a, 1);
    SAY(recv(a, buffer, 1, 0));
    SAY(send(a, "x", 1, MSG_NOSIGNAL));
    SAY(shutdown(a, SHUT_WR));
    SAY(accept(a, 0, 0));
    SAY(bind4(a, "10.99.99.99", 0));
    SAY(bind4(a, "127.0.0.9", 0));
    name("bound", a, 0);
    SAY(bind4(a, "127.0.0.1", 0));
    SAY(bind4(b, "127.0.0.9", port_of(a)));
    SAY(bind4(b, "0.0.0.0", port_of(a)));
    SAY(bind4(b, "127.0.0.8", port_of(a)));
    SAY(bind6(a, "::1", 0));
    SAY(connect4(b, "127.0.0.9", port_of(a)));
    look("refused", b);
    close(b);
    b = fresh(AF_INET, SOCK_STREAM);
    SAY(connect4(b, "127.0.0.1", 1));
    SAY(option(b, SOL_SOCKET, SO_ERROR));
    name("refused", b, 0);
    struct sockaddr_in odd = v4("127.0.0.1", 1);
    SAY(connect(b, (void *)&odd, 8));
    odd.sin_family = 77;
    SAY(connect(b, (void *)&odd, sizeof odd));
    SAY(bind(b, (void *)&odd, 8));
    SAY(bind(b, (void *)&odd, sizeof odd));
    SAY(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
    SAY(socket(AF_INET, SOCK_DGRAM, IPPROTO_TCP));
    SAY(socket(AF_INET, SOCK_SEQPACKET, 0));
    SAY(socket(AF_INET, 99, 0));
    SAY(socket(99, SOCK_STREAM, 0));
    int pair[2];
    SAY(socketpair(AF_INET, SOCK_STREAM, 0, pair));
    SAY(listen(fresh(AF_INET, SOCK_DGRAM), 1));
    close(a);
    close(b);
}

static void streams(void)
{
    puts("-- streams");
    int fd[2], listener = connected(fd);
    look("listener", listener);
    name("client", fd[0], 0);
    name("client peer", fd[0], 1);
    name("server", fd[1], 0);
    look("client", fd[0]);
    SAY(send(fd[0], "hello world", 11, 0));
    settle();
    look("server", fd[1]);
    int n;
    SAY(ioctl(fd[1], FIONREAD, &n));
    printf("waiting %d\n", n);
    SAY(recv(fd[1], buffer, 5, MSG_PEEK));
    SAY(recv(fd[1], buffer, 5, 0));
    printf("%.5s\n", buffer);
    struct sockaddr_in from;
    socklen_t len = sizeof from;
    SAY(recvfrom(fd[1], buffer, 100, 0, (void *)&from, &len));
    printf("from len %d\n", (int)len);
    SAY(recv(fd[1], buffer, 1, MSG_DONTWAIT));
    SAY(send(fd[0], "abcdef", 6, 0));
    settle();
    SAY(recv(fd[1], 0, 3, MSG_TRUNC));
    SAY(recv(fd[1], buffer, 9, 0));
    SAY(sendto(fd[0], "x", 1, 0, (void *)&from, sizeof from));
    SAY(connect4(fd[0], "127.0.0.1", 1));
    SAY(listen(fd[0], 1));
    SAY(shutdown(fd[0], SHUT_WR));
    settle();
    look("half closed", fd[0]);
    look("told", fd[1]);
    SAY(recv(fd[1], buffer, 100, 0));
    SAY(recv(fd[1], buffer, 100, 0));
    pipes = 0;
    SAY(send(fd[0], "x", 1, 0));
    printf("signals %d\n", pipes);
    SAY(send(fd[0], "x", 1, MSG_NOSIGNAL));
    printf("signals %d\n", pipes);
    SAY(send(fd[1], "answer", 6, 0));
    settle();
    SAY(recv(fd[0], buffer, 100, MSG_WAITALL | MSG_DONTWAIT));
    SAY(shutdown(fd[1], SHUT_RDWR));
    settle();
    look("both closed", fd[0]);
    close(fd[0]);
    close(fd[1]);
    close(listener);
}

static void endings(void)
{
    puts("-- endings");
    int fd[2], listener = connected(fd);
    close(fd[1]);
    settle();
    look("peer closed", fd[0]);
    SAY(recv(fd[0], buffer, 1, 0));
    SAY(send(fd[0], "x", 1, MSG_NOSIGNAL));
    settle();
    look("reset", fd[0]);
    SAY(send(fd[0], "x", 1, MSG_NOSIGNAL));
    SAY(recv(fd[0], buffer, 1, 0));
    name("reset peer", fd[0], 1);
    close(fd[0]);
    close(listener);

    listener = connected(fd);
    send(fd[0], "unread", 6, 0);
    settle();
    close(fd[1]);
    settle();
    look("closed with data", fd[0]);
    SAY(recv(fd[0], buffer, 1, 0));
    SAY(recv(fd[0], buffer, 1, 0));
    SAY(send(fd[0], "x", 1, MSG_NOSIGNAL));
    close(fd[0]);
    close(listener);

    listener = connected(fd);
    struct linger linger = {1, 0};
    setsockopt(fd[1], SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    send(fd[1], "late", 4, 0);
    close(fd[1]);
    settle();
    SAY(option(fd[0], SOL_SOCKET, SO_ERROR));
    look("lingered", fd[0]);
    SAY(shutdown(fd[0], SHUT_WR));
    close(fd[0]);
    close(listener);

    /* A listener that ends with connections waiting. */
    listener = fresh(AF_INET, SOCK_STREAM);
    bind4(listener, "127.0.0.1", 0);
    listen(listener, 5);
    fd[0] = fresh(AF_INET, SOCK_STREAM);
    SAY(connect4(fd[0], "127.0.0.1", port_of(listener)));
    close(listener);
    settle();
    SAY(recv(fd[0], buffer, 1, 0));
    close(fd[0]);

    /* Unaccepted data is kept; a listener shut down accepts no more. */
    listener = fresh(AF_INET, SOCK_STREAM);
    bind4(listener, "127.0.0.1", 0);
    listen(listener, 5);
    fd[0] = fresh(AF_INET, SOCK_STREAM);
    SAY(connect4(fd[0], "127.0.0.1", port_of(listener)));
    SAY(send(fd[0], "early", 5, 0));
    close(fd[0]);
    settle();
    look("waiting", listener);
    fd[1] = SAY(accept(listener, 0, 0)) < 0 ? -1 : 0;
    SAY(shutdown(listener, SHUT_RD));
    SAY(accept(listener, 0, 0));
    close(listener);
}

static void nonblocking(void)
{
    puts("-- nonblocking");
    int listener = fresh(AF_INET, SOCK_STREAM | SOCK_NONBLOCK), client = fresh(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
    bind4(listener, "127.0.0.1", 0);
    listen(listener, 5);
    SAY(accept(listener, 0, 0));
    SAY(connect4(client, "127.0.0.1", port_of(listener)));
    settle();
    look("connecting", client);
    SAY(option(client, SOL_SOCKET, SO_ERROR));
    SAY(connect4(client, "127.0.0.1", port_of(listener)));
    SAY(connect4(client, "127.0.0.1", port_of(listener)));
    int server = accept4(listener, 0, 0, SOCK_NONBLOCK);
    printf("flags %#x\n", fcntl(server, F_GETFL));
    long total = 0, got;
    while ((got = send(client, buffer, sizeof buffer, 0)) > 0)
        total += got;
    printf("filled %s %s\n", total > 100000 ? "much" : "little", strerrorname_np(errno));
    look("full", client);
    int set = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLOUT | EPOLLET};
    epoll_ctl(set, EPOLL_CTL_ADD, client, &e);
    SAY(epoll_wait(set, &e, 1, 0));
    long seen = 0;
    while (seen < total && (got = recv(server, buffer, sizeof buffer, 0)) != 0) {
        if (got > 0)
            seen += got;
    }
    printf("all came: %d\n", seen == total);
    SAY(epoll_wait(set, &e, 1, 1000));
    close(client);
    client = fresh(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
    SAY(connect4(client, "127.0.0.1", 1));
    settle();
    look("refused", client);
    SAY(option(client, SOL_SOCKET, SO_ERROR));
    SAY(option(client, SOL_SOCKET, SO_ERROR));
    look("refused and asked", client);
    close(client);
    client = fresh(AF_INET, SOCK_STREAM | SOCK_NONBLOCK);
    SAY(connect4(client, "127.0.0.1", 1));
    settle();
    SAY(connect4(client, "127.0.0.1", 1));
    close(client);
    close(server);
    close(listener);
}

static void ports(void)
{
    puts("-- ports");
    int fd[2], listener = connected(fd), port = port_of(listener), again = fresh(AF_INET, SOCK_STREAM);
    SAY(bind4(again, "127.0.0.1", port));
    set(again, SOL_SOCKET, SO_REUSEADDR, 1);
    SAY(bind4(again, "127.0.0.1", port));
    set(listener, SOL_SOCKET, SO_REUSEADDR, 1);
    SAY(bind4(again, "127.0.0.1", port));
    close(listener);
    close(fd[1]);
    settle();
    close(fd[0]);
    settle();
    /* This side closed first: its port rests for a while. */
    close(again);
    again = fresh(AF_INET, SOCK_STREAM);
    SAY(bind4(again, "127.0.0.1", port));
    close(again);
    again = fresh(AF_INET, SOCK_STREAM);
    set(again, SOL_SOCKET, SO_REUSEADDR, 1);
    SAY(bind4(again, "0.0.0.0", 0));
    SAY(listen(again, 1));
    int other = fresh(AF_INET, SOCK_STREAM);
    set(other, SOL_SOCKET, SO_REUSEADDR, 1);
    SAY(bind4(other, "127.0.0.1", port_of(again)));
    close(other);
    other = fresh(AF_INET6, SOCK_STREAM);
    SAY(bind6(other, "::", port_of(again)));
    set(other, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    SAY(bind6(other, "::", port_of(again)));
    SAY(set(other, IPPROTO_IPV6, IPV6_V6ONLY, 0));
    close(other);
    close(again);
    int one = fresh(AF_INET, SOCK_STREAM), two = fresh(AF_INET, SOCK_STREAM);
    set(one, SOL_SOCKET, SO_REUSEPORT, 1);
    set(two, SOL_SOCKET, SO_REUSEPORT, 1);
    SAY(bind4(one, "127.0.0.1", 0));
    SAY(bind4(two, "127.0.0.1", port_of(one)));
    SAY(listen(one, 1));
    SAY(listen(two, 1));
    close(one);
    close(two);
    one = fresh(AF_INET, SOCK_STREAM);
    SAY(listen(one, 1));
    name("listening without a name", one, 0);
    close(one);
}

static void version_6(void)
{
    puts("-- version 6");
    int listener = fresh(AF_INET6, SOCK_STREAM), client = fresh(AF_INET6, SOCK_STREAM);
    SAY(bind6(listener, "::", 0));
    SAY(listen(listener, 5));
    SAY(connect6(client, "::1", port_of(listener)));
    int server = accept(listener, 0, 0);
    name("server", server, 0);
    name("server peer", server, 1);
    close(client);
    close(server);
    client = fresh(AF_INET, SOCK_STREAM);
    SAY(connect4(client, "127.0.0.1", port_of(listener)));
    server = accept(listener, 0, 0);
    name("server of version 4", server, 0);
    name("its peer", server, 1);
    close(client);
    close(server);
    client = fresh(AF_INET6, SOCK_STREAM);
    SAY(connect6(client, "::ffff:127.0.0.1", port_of(listener)));
    name("mapped", client, 0);
    close(client);
    close(listener);
    listener = fresh(AF_INET6, SOCK_STREAM);
    set(listener, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    SAY(bind6(listener, "::ffff:127.0.0.1", 0));
    SAY(bind6(listener, "::", 0));
    SAY(listen(listener, 5));
    client = fresh(AF_INET, SOCK_STREAM);
    SAY(connect4(client, "127.0.0.1", port_of(listener)));
    close(client);
    close(listener);
}

static void options(void)
{
    puts("-- options");
    int s = fresh(AF_INET, SOCK_STREAM), d = fresh(AF_INET, SOCK_DGRAM);
    SAY(option(s, SOL_SOCKET, SO_TYPE));
    SAY(option(s, SOL_SOCKET, SO_DOMAIN));
    SAY(option(s, SOL_SOCKET, SO_PROTOCOL));
    SAY(option(d, SOL_SOCKET, SO_PROTOCOL));
    SAY(option(s, SOL_SOCKET, SO_ACCEPTCONN));
    SAY(option(s, SOL_SOCKET, SO_REUSEADDR));
    SAY(set(s, SOL_SOCKET, SO_REUSEADDR, 5));
    SAY(option(s, SOL_SOCKET, SO_REUSEADDR));
    SAY(option(s, IPPROTO_TCP, TCP_NODELAY));
    SAY(set(s, IPPROTO_TCP, TCP_NODELAY, 7));
    SAY(option(s, IPPROTO_TCP, TCP_NODELAY));
    SAY(option(s, IPPROTO_TCP, TCP_KEEPIDLE));
    SAY(set(s, IPPROTO_TCP, TCP_KEEPIDLE, 0));
    SAY(set(s, IPPROTO_TCP, TCP_KEEPIDLE, 30));
    SAY(option(s, IPPROTO_TCP, TCP_KEEPIDLE));
    SAY(option(s, IPPROTO_TCP, TCP_KEEPINTVL));
    SAY(option(s, IPPROTO_TCP, TCP_KEEPCNT));
    SAY(option(s, IPPROTO_TCP, TCP_MAXSEG));
    SAY(option(s, IPPROTO_IP, IP_TTL));
    SAY(set(s, IPPROTO_IP, IP_TTL, 0));
    SAY(set(s, IPPROTO_IP, IP_TTL, 256));
    SAY(set(s, IPPROTO_IP, IP_TTL, 9));
    SAY(option(s, IPPROTO_IP, IP_TTL));
    SAY(option(s, IPPROTO_IP, IP_TOS));
    SAY(option(d, IPPROTO_TCP, TCP_NODELAY));
    SAY(option(s, SOL_SOCKET, 999));
    SAY(option(s, IPPROTO_TCP, 999));
    SAY(option(s, 999, 1));
    SAY(set(s, SOL_SOCKET, SO_SNDBUF, 30000));
    SAY(option(s, SOL_SOCKET, SO_SNDBUF));
    SAY(option(d, SOL_SOCKET, SO_BROADCAST));
    SAY(setsockopt(s, SOL_SOCKET, SO_REUSEADDR, buffer, 2));
    SAY(option(s, SOL_SOCKET, SO_LINGER));
    struct timeval t = {0, 30000};
    setsockopt(d, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    SAY(recv(d, buffer, 1, 0));
    struct ifreq r = {.ifr_name = "lo"};
    SAY(ioctl(s, SIOCGIFFLAGS, &r));
    printf("flags %#x\n", r.ifr_flags & 0xffff);
    SAY(ioctl(s, SIOCGIFADDR, &r));
    printf("address %s\n", inet_ntoa(((struct sockaddr_in *)&r.ifr_addr)->sin_addr));
    SAY(ioctl(s, SIOCGIFNETMASK, &r));
    printf("mask %s\n", inet_ntoa(((struct sockaddr_in *)&r.ifr_addr)->sin_addr));
    SAY(ioctl(s, SIOCGIFMTU, &r));
    printf("mtu %d\n", r.ifr_mtu);
    SAY(ioctl(s, SIOCGIFINDEX, &r));
    printf("index %d\n", r.ifr_ifindex);
    SAY(ioctl(s, SIOCGIFHWADDR, &r));
    printf("hardware %d\n", r.ifr_hwaddr.sa_family);
    strcpy(r.ifr_name, "nowhere0");
    SAY(ioctl(s, SIOCGIFFLAGS, &r));
    SAY(if_nametoindex("lo"));
    close(s);
    close(d);
}

static void messages(void)
{
    puts("-- messages");
    int a = fresh(AF_INET, SOCK_DGRAM), b = fresh(AF_INET, SOCK_DGRAM);
    look("new", a);
    SAY(send(a, "x", 1, 0));
    SAY(shutdown(a, SHUT_RD));
    SAY(recv(a, buffer, 1, MSG_DONTWAIT));
    SAY(bind4(b, "127.0.0.1", 0));
    struct sockaddr_in to = v4("127.0.0.1", port_of(b)), from;
    socklen_t len = sizeof from;
    SAY(sendto(a, "message", 7, 0, (void *)&to, sizeof to));
    name("sender", a, 0);
    settle();
    look("receiver", b);
    SAY(recvfrom(b, buffer, 3, MSG_PEEK, (void *)&from, &len));
    printf("from %s len %d same port %d\n", inet_ntoa(from.sin_addr), (int)len, ntohs(from.sin_port) == port_of(a));
    SAY(recv(b, buffer, 3, MSG_TRUNC));
    SAY(recv(b, buffer, 3, MSG_DONTWAIT));
    SAY(sendto(a, "", 0, 0, (void *)&to, sizeof to));
    settle();
    SAY(recv(b, buffer, 3, 0));
    SAY(sendto(a, buffer, 65507, 0, (void *)&to, sizeof to));
    settle();
    SAY(recv(b, buffer, sizeof buffer, 0));
    SAY(sendto(a, buffer, 65508, 0, (void *)&to, sizeof to));
    to.sin_port = 0;
    SAY(sendto(a, "x", 1, 0, (void *)&to, sizeof to));
    SAY(connect4(a, "127.0.0.1", port_of(b)));
    name("connected", a, 0);
    name("its peer", a, 1);
    SAY(send(a, "y", 1, 0));
    settle();
    SAY(recv(b, buffer, 3, 0));
    close(b);
    SAY(send(a, "z", 1, 0));
    settle();
    look("nobody there", a);
    SAY(send(a, "z", 1, 0));
    SAY(send(a, "z", 1, 0));
    settle();
    SAY(recv(a, buffer, 1, 0));
    SAY(option(a, SOL_SOCKET, SO_ERROR));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    SAY(connect(a, &none, sizeof none));
    name("disconnected", a, 1);
    SAY(shutdown(a, SHUT_RD));
    close(a);
    a = fresh(AF_INET, SOCK_DGRAM), b = fresh(AF_INET, SOCK_DGRAM);
    SAY(bind4(a, "127.0.0.1", 0));
    set(b, SOL_SOCKET, SO_REUSEADDR, 1);
    SAY(bind4(b, "127.0.0.1", port_of(a)));
    set(a, SOL_SOCKET, SO_REUSEADDR, 1);
    SAY(bind4(b, "127.0.0.1", port_of(a)));
    close(a);
    close(b);
}

/* Messages made of several calls (MSG_MORE, UDP_CORK). */
static void parts(void)
{
    char buf[100];
    int a = fresh(AF_INET, SOCK_DGRAM), b = fresh(AF_INET, SOCK_DGRAM), other = fresh(AF_INET, SOCK_DGRAM);
    bind4(b, "127.0.0.1", 0);
    bind4(other, "127.0.0.1", 0);
    SAY(connect4(a, "127.0.0.1", port_of(b)));
    SAY(send(a, "one ", 4, MSG_MORE));
    SAY(recv(b, buf, sizeof buf, MSG_DONTWAIT));
    SAY(send(a, "two ", 4, MSG_MORE));
    SAY(recv(b, buf, sizeof buf, MSG_DONTWAIT));
    /* It goes where its beginning was to go. */
    struct sockaddr_in to = v4("127.0.0.1", port_of(other));
    SAY(sendto(a, "three", 5, 0, (void *)&to, sizeof to));
    SAY(recv(other, buf, sizeof buf, MSG_DONTWAIT));
    memset(buf, 0, sizeof buf);
    SAY(recv(b, buf, sizeof buf, MSG_DONTWAIT));
    printf("%s\n", buf);
    SAY(set(a, IPPROTO_UDP, 1, 1));
    SAY(send(a, "corked ", 7, 0));
    SAY(send(a, "message", 7, 0));
    SAY(recv(b, buf, sizeof buf, MSG_DONTWAIT));
    SAY(set(a, IPPROTO_UDP, 1, 0));
    memset(buf, 0, sizeof buf);
    SAY(recv(b, buf, sizeof buf, MSG_DONTWAIT));
    printf("%s\n", buf);
    SAY(send(a, buffer, 60000, MSG_MORE));
    SAY(send(a, buffer, 60000, 0));
    close(a);
    close(b);
    close(other);
}

/* Of several who wait exclusively, one is woken for each event. */
static void exclusively(void)
{
    int p[2], told[2];
    pid_t children[5];
    pipe(p);
    pipe(told);
    fflush(stdout);
    for (int i = 0; i < 5; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            struct epoll_event e = {.events = EPOLLIN | EPOLLET | EPOLLEXCLUSIVE};
            int set = epoll_create1(0);
            epoll_ctl(set, EPOLL_CTL_ADD, p[0], &e);
            write(told[1], "r", 1);
            if (epoll_wait(set, &e, 1, 20000) == 1)
                write(told[1], "w", 1);
            _exit(0);
        }
    }
    char c;
    for (int i = 0; i < 5; i++)
        read(told[0], &c, 1);
    settle();
    for (int i = 0; i < 5; i++) {
        write(p[1], "x", 1);
        read(told[0], &c, 1);
        settle();
        int more = 0;
        ioctl(told[0], FIONREAD, &more);
        printf("event %d: %c, and %d more\n", i, c, more);
        read(p[0], &c, 1);
    }
    for (int i = 0; i < 5; i++)
        waitpid(children[i], 0, 0);
    for (int i = 0; i < 2; i++) {
        close(p[i]);
        close(told[i]);
    }
}

static void urgent(void)
{
    puts("-- urgent");
    int fd[2], listener = connected(fd), mark = -1;
    SAY(recv(fd[1], buffer, 1, MSG_OOB));
    SAY(send(fd[0], "ab!", 3, MSG_OOB));
    SAY(send(fd[0], "cd", 2, 0));
    settle();
    look("urgent", fd[1]);
    SAY(recv(fd[1], buffer, 10, 0));
    SAY(ioctl(fd[1], SIOCATMARK, &mark));
    printf("at mark %d\n", mark);
    SAY(recv(fd[1], buffer, 1, MSG_OOB));
    printf("%c\n", buffer[0]);
    SAY(recv(fd[1], buffer, 1, MSG_OOB));
    SAY(recv(fd[1], buffer, 10, 0));
    look("read", fd[1]);
    close(fd[0]);
    close(fd[1]);
    close(listener);
}

/* What netlink tells of the loopback interface. */
static void interfaces(void)
{
    puts("-- interfaces");
    struct ifaddrs *all, *each;
    SAY(getifaddrs(&all));
    for (each = all; each; each = each->ifa_next) {
        char text[64];
        struct sockaddr *a = each->ifa_addr;
        if (strcmp(each->ifa_name, "lo") || !a)
            continue;
        if (a->sa_family == AF_INET)
            inet_ntop(AF_INET, &((struct sockaddr_in *)a)->sin_addr, text, sizeof text);
        else if (a->sa_family == AF_INET6)
            inet_ntop(AF_INET6, &((struct sockaddr_in6 *)a)->sin6_addr, text, sizeof text);
        else
            strcpy(text, "link");
        printf("%s family %d flags %#x %s\n", each->ifa_name, a->sa_family, each->ifa_flags, text);
    }
    int s = socket(AF_NETLINK, SOCK_RAW, 0);
    SAY(recv(s, buffer, 1, MSG_DONTWAIT));
    look("netlink", s);
    close(s);
}

/* A socket bound to a path that moves to another descriptor and another process, as syslogd's does. */
static void paths(const char *dir)
{
    puts("-- paths");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s/log", dir);
    unlink(a.sun_path);
    int s = socket(AF_UNIX, SOCK_DGRAM, 0), done[2];
    SAY(bind(s, (void *)&a, sizeof a));
    pipe(done);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        dup2(s, 10);
        close(s);
        int n = read(10, buffer, 255);
        /* Not before the parent has said what it has done. */
        char go;
        read(done[0], &go, 1);
        printf("child got %d: %.*s\n", n, n, buffer);
        fflush(stdout);
        _exit(0);
    }
    close(s);
    int c = socket(AF_UNIX, SOCK_DGRAM, 0);
    SAY(connect(c, (void *)&a, 2 + strlen(a.sun_path)));
    SAY(send(c, "<13>hello", 9, 0));
    fflush(stdout);
    write(done[1], "g", 1);
    waitpid(child, 0, 0);
    SAY(send(c, "again", 5, 0));
    unlink(a.sun_path);
    close(c);
}

int main(int argc, char **argv)
{
    setvbuf(stdout, 0, _IOLBF, 0);
    signal(SIGPIPE, note);
    names_and_errors();
    streams();
    endings();
    nonblocking();
    ports();
    version_6();
    options();
    messages();
    parts();
    exclusively();
    urgent();
    interfaces();
    paths(argv[2]);
    return 0;
}
