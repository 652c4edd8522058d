/* Loop devices: files as disks. Natively it takes root and a kernel that has them; not every one of those knows partitions. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "say.h"

/* CANNOT: the exit status where nothing can be compared. */
enum { CANNOT = 77, SECTOR = 512, SIZE = 4 << 20 };

static int control, number;
static char device[64], path[4096];

/* A file of SIZE bytes, each of which says where it is. */
static int file(const char *directory, const char *name, int flags)
{
    static char bytes[SIZE];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    for (size_t i = 0; i < SIZE; i++) bytes[i] = (char)(i / SECTOR + i % 7);
    if (fd < 0 || write(fd, bytes, SIZE) != SIZE) perror(path), exit(1);
    close(fd);
    return open(path, flags);
}

static int configure(int fd, int back, uint64_t offset, uint64_t limit, uint32_t flags, uint32_t block_size)
{
    struct loop_config config = {.fd = back, .block_size = block_size};
    config.info.lo_offset = offset;
    config.info.lo_sizelimit = limit;
    config.info.lo_flags = flags;
    strcpy((char *)config.info.lo_file_name, "a name");
    return ioctl(fd, LOOP_CONFIGURE, &config);
}

static void status(int fd, int back)
{
    struct loop_info64 info;
    struct stat st;
    memset(&info, 0, sizeof info);
    if (SAY(ioctl(fd, LOOP_GET_STATUS64, &info)) < 0) return;
    fstat(back, &st);
    printf("  offset %llu limit %llu flags %u name %s key %u; device %d inode %d number %d\n",
           (unsigned long long)info.lo_offset, (unsigned long long)info.lo_sizelimit, info.lo_flags, info.lo_file_name,
           info.lo_encrypt_key_size, info.lo_device == st.st_dev, info.lo_inode == st.st_ino,
           info.lo_number == (uint32_t)number);
}

static void sizes(int fd)
{
    uint64_t bytes = 0;
    unsigned long sectors = 0;
    int sector = 0, read_only = 0;
    SAY(ioctl(fd, BLKGETSIZE64, &bytes));
    ioctl(fd, BLKGETSIZE, &sectors);
    ioctl(fd, BLKSSZGET, &sector);
    ioctl(fd, BLKROGET, &read_only);
    printf("  %llu bytes, %lu sectors of %d, read-only %d, end %lld\n", (unsigned long long)bytes, sectors, sector, read_only,
           (long long)lseek(fd, 0, SEEK_END));
}

/* A file of the device's directory in /sys. */
static void show(const char *name)
{
    char where[256], text[4096] = "";
    snprintf(where, sizeof where, "/sys/block/loop%d/%s", number, name);
    FILE *shown = fopen(where, "r");
    if (!shown) {
        printf("%s: %s\n", name, strerrorname_np(errno));
        return;
    }
    if (!fgets(text, sizeof text, shown)) text[0] = 0;
    fclose(shown);
    text[strcspn(text, "\n")] = 0;
    printf("%s: %s\n", name, strcmp(text, path) ? text : "the file's path");
}

static void show_all(void)
{
    const char *names[] = {"size", "ro", "loop/backing_file", "loop/offset", "loop/sizelimit", "loop/autoclear", "loop/partscan"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) show(names[i]);
}

static void plain(const char *directory)
{
    char bytes[3 * SECTOR];
    struct loop_info old;
    int back = file(directory, "loop-file", O_RDWR), fd = open(device, O_RDWR);
    puts("-- without a file");
    sizes(fd);
    SAY(read(fd, bytes, SECTOR));
    SAY(write(fd, bytes, SECTOR));
    status(fd, back);
    SAY(ioctl(fd, LOOP_CLR_FD));
    SAY(ioctl(fd, LOOP_SET_CAPACITY));
    SAY(ioctl(fd, LOOP_SET_BLOCK_SIZE, 1024));
    SAY(ioctl(fd, BLKRRPART));
    show("loop/backing_file");
    puts("-- what no device can be on");
    SAY(ioctl(fd, LOOP_SET_FD, -1));
    int others[] = {open(directory, O_RDONLY), open("/dev/null", O_RDWR), open(path, O_PATH)};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        SAY(ioctl(fd, LOOP_SET_FD, others[i]));
        close(others[i]);
    }
    SAY(configure(fd, back, 0, 0, 2, 0));
    SAY(configure(fd, back, 0, 0, 0, 511));
    SAY(configure(fd, back, 0, 0, 0, 3 << 20));
    SAY(configure(fd, back, 1ull << 63, 0, 0, 0));
    puts("-- a whole file");
    SAY(ioctl(fd, LOOP_SET_FD, back));
    SAY(ioctl(fd, LOOP_SET_FD, back));
    status(fd, back);
    sizes(fd);
    show_all();
    SAY(pread(fd, bytes, sizeof bytes, 5 * SECTOR));
    printf("  %d %d %d\n", bytes[0], bytes[SECTOR], bytes[2 * SECTOR + 3]);
    memset(bytes, 'x', sizeof bytes);
    SAY(pwrite(fd, bytes, sizeof bytes, 100 * SECTOR + 17));
    SAY(fsync(fd));
    memset(bytes, 0, sizeof bytes);
    SAY(pread(back, bytes, sizeof bytes, 100 * SECTOR));
    printf("  %d %d %d\n", bytes[16], bytes[17], bytes[sizeof bytes - 1]);
    SAY(pwrite(fd, bytes, sizeof bytes, SIZE - SECTOR));
    SAY(pwrite(fd, bytes, sizeof bytes, SIZE));
    SAY(pread(fd, bytes, sizeof bytes, SIZE));
    SAY(ioctl(fd, LOOP_GET_STATUS, &old));
    SAY(ioctl(fd, BLKRRPART));
    puts("-- a part of it");
    struct loop_info64 info;
    memset(&info, 0, sizeof info);
    info.lo_offset = 3 * SECTOR;
    info.lo_sizelimit = 7 * SECTOR + 100;
    strcpy((char *)info.lo_file_name, "another name");
    SAY(ioctl(fd, LOOP_SET_STATUS64, &info));
    status(fd, back);
    sizes(fd);
    show_all();
    SAY(pread(fd, bytes, SECTOR, SECTOR));
    printf("  %d\n", bytes[0]);
    info.lo_encrypt_type = 2;
    SAY(ioctl(fd, LOOP_SET_STATUS64, &info));
    info.lo_encrypt_type = 0;
    info.lo_offset = 1ull << 31;
    SAY(ioctl(fd, LOOP_SET_STATUS64, &info));
    SAY(ioctl(fd, LOOP_GET_STATUS, &old));
    sizes(fd);
    info.lo_offset = info.lo_sizelimit = 0;
    SAY(ioctl(fd, LOOP_SET_STATUS64, &info));
    puts("-- larger, and with other sectors");
    SAY(ftruncate(back, SIZE + 3 * SECTOR));
    sizes(fd);
    SAY(ioctl(fd, LOOP_SET_CAPACITY));
    sizes(fd);
    SAY(ioctl(fd, LOOP_SET_BLOCK_SIZE, 1000));
    SAY(ioctl(fd, LOOP_SET_BLOCK_SIZE, 256));
    SAY(ioctl(fd, LOOP_SET_BLOCK_SIZE, 4096));
    sizes(fd);
    SAY(ioctl(fd, LOOP_CHANGE_FD, back));
    puts("-- let go");
    SAY(ioctl(fd, LOOP_CLR_FD));
    close(fd);
    fd = open(device, O_RDONLY);
    status(fd, back);
    sizes(fd);
    close(fd);
    close(back);
}

static void read_only(const char *directory)
{
    puts("-- read-only");
    int back = file(directory, "loop-file", O_RDONLY), fd = open(device, O_RDWR);
    SAY(configure(fd, back, 0, 0, 0, 1024));
    status(fd, back);
    sizes(fd);
    show("ro");
    int reader = OPENED(open(device, O_RDWR));
    char byte = 0;
    SAY(pread(reader, &byte, 1, 9 * SECTOR));
    SAY(pwrite(reader, &byte, 1, 9 * SECTOR));
    puts("-- goes with the last use");
    SAY(ioctl(fd, LOOP_CLR_FD));
    status(reader, back);
    close(fd);
    status(reader, back);
    close(reader);
    reader = open(device, O_RDONLY);
    status(reader, back);
    close(reader);
    fd = open(device, O_RDWR);
    SAY(configure(fd, back, SECTOR, 0, LO_FLAGS_AUTOCLEAR | LO_FLAGS_READ_ONLY, 0));
    status(fd, back);
    show("loop/autoclear");
    int other = open(device, O_RDONLY);
    close(fd);
    status(other, back);
    close(other);
    other = open(device, O_RDONLY);
    status(other, back);
    close(other);
    /* Another file of the same size. */
    fd = open(device, O_RDONLY);
    SAY(configure(fd, back, 0, 0, 0, 0));
    int second = file(directory, "loop-second", O_RDONLY);
    SAY(ioctl(fd, LOOP_CHANGE_FD, second));
    status(fd, second);
    SAY(truncate(path, SIZE + SECTOR));
    SAY(ioctl(fd, LOOP_CHANGE_FD, second));
    SAY(ioctl(fd, LOOP_CLR_FD));
    close(fd);
    unlink(path);
    close(second);
    close(back);
}

/* A device on another one, and none on itself. */
static void on_top(const char *directory)
{
    puts("-- on top of each other");
    int back = file(directory, "loop-file", O_RDWR), fd = open(device, O_RDWR);
    SAY(configure(fd, fd, 0, 0, 0, 0));
    SAY(configure(fd, back, 2 * SECTOR, 0, 0, 0));
    int upper_number = ioctl(control, LOOP_CTL_GET_FREE);
    char upper_device[64], byte = 0;
    snprintf(upper_device, sizeof upper_device, "/dev/loop%d", upper_number);
    int upper = open(upper_device, O_RDWR);
    SAY(configure(upper, fd, 3 * SECTOR, 0, 0, 0));
    sizes(upper);
    SAY(pread(upper, &byte, 1, 0));
    printf("  %d\n", byte);
    SAY(pwrite(upper, "y", 1, SECTOR));
    SAY(fsync(upper));
    SAY(fsync(fd));
    SAY(pread(back, &byte, 1, 6 * SECTOR));
    printf("  %c\n", byte);
    SAY(ioctl(upper, LOOP_CLR_FD));
    close(upper);
    SAY(ioctl(fd, LOOP_CLR_FD));
    close(fd);
    close(back);
    unlink(path);
}

/* Devices come and go by number. */
static void devices(void)
{
    puts("-- devices");
    SAY(ioctl(control, LOOP_CTL_ADD, 200) == 200);
    SAY(ioctl(control, LOOP_CTL_ADD, 200));
    printf("node: %d\n", access("/sys/block/loop200/size", R_OK));
    SAY(ioctl(control, LOOP_CTL_REMOVE, 200) == 200);
    SAY(ioctl(control, LOOP_CTL_REMOVE, 200));
    printf("node: %d\n", access("/sys/block/loop200/size", R_OK));
    int fd = open(device, O_RDONLY);
    SAY(ioctl(control, LOOP_CTL_REMOVE, number));
    close(fd);
    SAY(ioctl(control, BLKGETSIZE64, &fd));
}

int main(int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3) return 2;
    control = open("/dev/loop-control", O_RDWR);
    if (control < 0 || (number = ioctl(control, LOOP_CTL_GET_FREE)) < 0) return CANNOT;
    snprintf(device, sizeof device, "/dev/loop%d", number);
    int probe = open(device, O_RDWR);
    if (probe < 0) return CANNOT;
    close(probe);
    struct stat st;
    stat("/dev/loop-control", &st);
    printf("control: %x %u:%u\n", st.st_mode & S_IFMT, major(st.st_rdev), minor(st.st_rdev));
    stat(device, &st);
    printf("device: %x %u\n", st.st_mode & S_IFMT, major(st.st_rdev));
    for (int i = 1; i < 3; i++) {
        printf("== directory %d\n", i);
        plain(argv[i]);
        read_only(argv[i]);
        on_top(argv[i]);
    }
    devices();
    return 0;
}
