/* The file system: names and data. */
#include "bench.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { FILES = 1000, PIECE = 128 * 1024, PIECES = 256, BLOCK = 4096, APPENDS = 4096 };

static char buffer[PIECE];
static int file = -1;

static const char *numbered(int i) {
    char name[32];
    snprintf(name, sizeof name, "many/f%05d", i);
    return below(name);
}

static int make_directory(void) { return mkdir(below("many"), 0755) && errno != EEXIST ? failure() : 0; }

static int create_all(void) {
    for (int i = 0; i < FILES; i++) {
        int f = open(numbered(i), O_CREAT | O_WRONLY, 0644);
        if (f < 0 || write(f, buffer, 100) != 100 || close(f)) return failure();
    }
    return 0;
}

static int unlink_all(void) {
    for (int i = 0; i < FILES; i++)
        if (unlink(numbered(i))) return failure();
    return 0;
}

static int create_unlink_body(long n) {
    while (n--) {
        int error = create_all();
        if (error || (error = unlink_all())) return error;
    }
    return 0;
}
static void remove_directory(void) { rmdir(below("many")); }

static int fill_directory(void) {
    int error = make_directory();
    return error ? error : create_all();
}
static void clear_directory(void) {
    unlink_all();
    remove_directory();
}

static int readdir_body(long n) {
    while (n--) {
        long found = 0;
        DIR *d = opendir(below("many"));
        if (!d) return failure();
        while (readdir(d)) found++;
        closedir(d);
        if (found != FILES + 2) return EIO;
    }
    return 0;
}

/* 20 directories of 10 directories of 5 files. */
static int each_of_tree(int make) {
    char path[64];
    for (int phase = 0; phase < 2; phase++)
        for (int d = 0; d < 20; d++) {
            snprintf(path, sizeof path, "walk/d%d", d);
            if (phase == 0 && make && mkdir(below(path), 0755)) return failure();
            for (int s = 0; s < 10; s++) {
                snprintf(path, sizeof path, "walk/d%d/s%d", d, s);
                if (phase == 0 && make && mkdir(below(path), 0755)) return failure();
                for (int f = 0; f < 5 && phase == 0; f++) {
                    snprintf(path, sizeof path, "walk/d%d/s%d/f%d", d, s, f);
                    if (!make) unlink(below(path));
                    else if ((file = open(below(path), O_CREAT | O_WRONLY, 0644)) < 0 || close(file)) return failure();
                }
                snprintf(path, sizeof path, "walk/d%d/s%d", d, s);
                if (phase == 1 && !make) rmdir(below(path));
            }
            snprintf(path, sizeof path, "walk/d%d", d);
            if (phase == 1 && !make) rmdir(below(path));
        }
    return 0;
}
enum { TREE_ENTRIES = 20 + 20 * 10 + 20 * 10 * 5 };

static int make_tree(void) {
    if (mkdir(below("walk"), 0755)) return failure();
    return each_of_tree(1);
}
static void drop_tree(void) {
    each_of_tree(0);
    rmdir(below("walk"));
}

static long walk(const char *directory) {
    char path[4096];
    long found = 0;
    struct dirent *entry;
    struct stat s;
    DIR *d = opendir(directory);
    if (!d) return 0;
    while ((entry = readdir(d))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        if (lstat(path, &s)) continue;
        found += 1 + (S_ISDIR(s.st_mode) ? walk(path) : 0);
    }
    closedir(d);
    return found;
}
static int walk_body(long n) {
    while (n--)
        if (walk(below("walk")) != TREE_ENTRIES) return EIO;
    return 0;
}

static int make_file(void) {
    file = open(below("data"), O_CREAT | O_RDWR | O_TRUNC, 0644);
    return file < 0 ? failure() : 0;
}
static void drop_file(void) {
    close(file);
    unlink(below("data"));
}
static int written_anew(long n, int count, ssize_t size) {
    while (n--) {
        if (ftruncate(file, 0) || lseek(file, 0, SEEK_SET)) return failure();
        for (int i = 0; i < count; i++)
            if (write(file, buffer, size) != size) return failure();
    }
    return 0;
}
static int write_body(long n) { return written_anew(n, PIECES, PIECE); }
static int append_4k_body(long n) { return written_anew(n, APPENDS, BLOCK); }
static int append_100_body(long n) { return written_anew(n, APPENDS, 100); }
static int fill_file(void) {
    int error = make_file();
    return error ? error : write_body(1);
}
static int read_body(long n) {
    while (n--) {
        if (lseek(file, 0, SEEK_SET)) return failure();
        for (int i = 0; i < PIECES; i++)
            if (read(file, buffer, PIECE) != PIECE) return failure();
    }
    return 0;
}
static int random_body(long n) {
    static unsigned long state = 88172645463325252UL;
    while (n--) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        off_t at = state % (PIECES * (PIECE / BLOCK)) * BLOCK;
        if (pread(file, buffer, BLOCK, at) != BLOCK) return failure();
    }
    return 0;
}

const struct operation file_operations[] = {
    {"create-unlink", make_directory, remove_directory, create_unlink_body, FILES},
    {"readdir", fill_directory, clear_directory, readdir_body, FILES},
    {"find-walk", make_tree, drop_tree, walk_body, TREE_ENTRIES},
    {"write-1m", make_file, drop_file, write_body, PIECES * (long)PIECE >> 20},
    {"append-4k", make_file, drop_file, append_4k_body, APPENDS},
    {"append-100", make_file, drop_file, append_100_body, APPENDS},
    {"read-1m", fill_file, drop_file, read_body, PIECES * (long)PIECE >> 20},
    {"pread-random-4k", fill_file, drop_file, random_body, 1},
    {0},
};
