/* The measured operations: each a body that does its work N times, with what it needs set up before. */
#ifndef BENCH_H
#define BENCH_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

struct operation {
    const char *name;
    /* Both may be null; 0 or an errno. */
    int (*prepare)(void);
    void (*finish)(void);
    /* Does the work n times; 0 or an errno. */
    int (*body)(long n);
    /* What the time is for: n times the work are n * per operations. */
    long per;
};

extern const struct operation call_operations[];
extern const struct operation message_operations[];
extern const struct operation process_operations[];
extern const struct operation memory_operations[];
extern const struct operation file_operations[];

/* This program's own path, and a directory of the file system under test. */
extern const char *self;
extern const char *directory;

/* A path below the directory, in one of a few buffers that come round. */
const char *below(const char *name);

/* Nanoseconds of the monotonic clock. */
double now(void);

/* errno, or EIO for a call that did less than asked. */
static inline int failure(void) { return errno ? errno : EIO; }

#endif
