/* Mapped memory. */
#include "bench.h"
#include <sys/mman.h>

enum { PAGE = 4096, MEGABYTE = 1 << 20 };

static char *area;

static char *map(size_t size) {
    char *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? 0 : p;
}

/* Small pages, also where the kernel would take large ones; one that has none need not be asked. */
static int small_pages(char *p) { return madvise(p, MEGABYTE, MADV_NOHUGEPAGE) && errno != EINVAL; }

static void touch(char *p, size_t size) {
    for (size_t at = 0; at < size; at += PAGE) ((volatile char *)p)[at] = 1;
}

static int map_page_body(long n) {
    while (n--) {
        char *p = map(PAGE);
        if (!p || munmap(p, PAGE)) return failure();
    }
    return 0;
}

static int map_touch_body(long n) {
    while (n--) {
        char *p = map(MEGABYTE);
        if (!p || small_pages(p)) return failure();
        touch(p, MEGABYTE);
        munmap(p, MEGABYTE);
    }
    return 0;
}

static int make_area(void) {
    area = map(MEGABYTE);
    return !area || small_pages(area) ? failure() : 0;
}
static void drop_area(void) { munmap(area, MEGABYTE); }

static int fault_body(long n) {
    while (n--) {
        if (madvise(area, MEGABYTE, MADV_DONTNEED)) return failure();
        touch(area, MEGABYTE);
    }
    return 0;
}

static int protect_body(long n) {
    while (n--) {
        if (mprotect(area, PAGE, PROT_READ) || mprotect(area, PAGE, PROT_READ | PROT_WRITE)) return failure();
        touch(area, PAGE);
    }
    return 0;
}

const struct operation memory_operations[] = {
    {"mmap-munmap-4k", 0, 0, map_page_body, 1},
    {"mmap-touch-1m", 0, 0, map_touch_body, 1},
    {"page-fault", make_area, drop_area, fault_body, MEGABYTE / PAGE},
    {"mprotect", make_area, drop_area, protect_body, 1},
    {0},
};
