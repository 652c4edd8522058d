/* System V IPC: shared memory, semaphores, message queues. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "say.h"

#define KEY 0x756d6c66
#define PAGE 4096

union semun {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
    struct seminfo *info;
};

static int id_ok(int id) { return id >= 0 ? 0 : id; }

static int attached(int id) {
    struct shmid_ds ds;
    return shmctl(id, IPC_STAT, &ds) ? -1 : (int)ds.shm_nattch;
}

/* What /proc/self/maps calls the mapping at an address. */
static void name_of(void *at) {
    char line[512], name[256] = "";
    unsigned long start, end;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %255[^\n]", &start, &end, name) >= 2 && start == (unsigned long)at)
            printf("mapped as %s, %lu bytes\n", name, end - start);
    if (maps) fclose(maps);
}

static void *as_pointer(long value) { return (void *)value; }

static void shared_memory(void) {
    struct shmid_ds ds;
    SAY(shmget(KEY, 100, 0));
    SAY(shmget(KEY, 0, IPC_CREAT | 0600));
    int id = shmget(KEY, 2 * PAGE + 5, IPC_CREAT | IPC_EXCL | 0640);
    SAY(id_ok(id));
    SAY(shmget(KEY, 0, IPC_CREAT | IPC_EXCL | 0640));
    SAY(shmget(KEY, 0, 0) == id);
    SAY(shmget(KEY, 3 * PAGE, 0));
    SAY(shmctl(id, IPC_STAT, &ds));
    printf("size %zu mode %o attached %lu key %x mine %d %d\n", ds.shm_segsz, ds.shm_perm.mode, (unsigned long)ds.shm_nattch,
           ds.shm_perm.__key, ds.shm_perm.uid == geteuid(), ds.shm_cpid == getpid());
    char *a = shmat(id, NULL, 0), *b = shmat(id, NULL, SHM_RDONLY);
    SAY(a == (void *)-1 || b == (void *)-1 || a == b);
    strcpy(a + PAGE, "through another mapping");
    printf("%s\n", b + PAGE);
    name_of(a);
    SAY(attached(id));
    SAY((long)shmat(id, a, 0));
    SAY((long)shmat(id, a + 1, 0));
    SAY((long)shmat(id, as_pointer(0), SHM_REMAP));
    SAY((long)shmat(id, a + 1, SHM_RND | SHM_REMAP) == (long)a);
    SAY(attached(id));
    SAY((long)shmat(-1, NULL, 0));
    pid_t child = fork();
    if (child == 0) {
        strcpy(a + 2 * PAGE, "by a child");
        printf("child: %d attached\n", attached(id));
        fflush(stdout);
        _exit(0);
    }
    waitpid(child, NULL, 0);
    printf("%s\n", b + 2 * PAGE);
    SAY(shmctl(id, IPC_STAT, &ds));
    printf("last %d\n", ds.shm_lpid == child);
    /* A part of it, and its attachment goes on. */
    SAY(mprotect(a + PAGE, PAGE, PROT_READ));
    SAY(munmap(a, PAGE));
    SAY(attached(id) > 0);
    SAY(shmdt(a + 1));
    SAY(shmdt(a));
    SAY(shmdt(a));
    SAY(attached(id));
    ds.shm_perm.mode = 0600;
    SAY(shmctl(id, IPC_SET, &ds));
    SAY(shmctl(id, SHM_LOCK, NULL));
    SAY(shmctl(id, IPC_STAT, &ds));
    printf("mode %o\n", ds.shm_perm.mode);
    SAY(shmctl(id, SHM_UNLOCK, NULL));
    SAY(shmctl(id, IPC_RMID, NULL));
    SAY(shmget(KEY, 0, 0));
    SAY(shmctl(id, IPC_STAT, &ds));
    printf("mode %o attached %lu key %x\n", ds.shm_perm.mode, (unsigned long)ds.shm_nattch, ds.shm_perm.__key);
    /* Removed, and still there. */
    printf("%s\n", b + PAGE);
    a = shmat(id, NULL, 0);
    SAY(a == (void *)-1);
    SAY(shmdt(a));
    SAY(shmdt(b));
    SAY(shmctl(id, IPC_STAT, &ds));
    SAY((long)shmat(id, NULL, 0));
    SAY(shmctl(id, IPC_RMID, NULL));
    SAY(shmctl(0, 99, NULL));
}

static void lock_in_shared_memory(void) {
    int id = shmget(IPC_PRIVATE, PAGE, 0600);
    struct both {
        pthread_mutex_t mutex;
        long count;
    } *both = shmat(id, NULL, 0);
    shmctl(id, IPC_RMID, NULL);
    pthread_mutexattr_t attr;
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(&both->mutex, &attr);
    for (int i = 0; i < 4; i++)
        if (fork() == 0) {
            /* An attachment of its own is the same memory, and the same futex. */
            for (int n = 0; n < 20000; n++) {
                pthread_mutex_lock(&both->mutex);
                both->count++;
                pthread_mutex_unlock(&both->mutex);
            }
            _exit(0);
        }
    while (wait(NULL) > 0)
        ;
    printf("counted %ld\n", both->count);
    shmdt(both);
}

static int op(int id, int n, int change, int flags) {
    struct sembuf one = {n, change, flags};
    return semop(id, &one, 1);
}

static int both(int id, int a, int b, int flags) {
    struct sembuf two[] = {{0, a, flags}, {1, b, flags}};
    return semop(id, two, 2);
}

static int value(int id, int n) { return semctl(id, n, GETVAL); }

static void pause_ms(int ms) {
    struct timespec some = {0, ms * 1000000L};
    nanosleep(&some, NULL);
}

static void handler(int signal) { (void)signal; }

static void semaphores(void) {
    struct semid_ds ds;
    unsigned short values[3] = {4, 5, 6};
    SAY(semget(KEY, 0, IPC_CREAT | 0600));
    SAY(semget(KEY, -1, IPC_CREAT | 0600));
    SAY(semget(KEY, 32001, IPC_CREAT | 0600));
    int id = semget(KEY, 3, IPC_CREAT | 0600);
    SAY(id_ok(id));
    SAY(semget(KEY, 4, 0));
    SAY(semget(KEY, 2, 0) == id);
    SAY(semctl(id, 0, SETALL, (union semun){.array = values}));
    SAY(both(id, -4, -6, IPC_NOWAIT));
    SAY(both(id, -4, -5, IPC_NOWAIT));
    SAY(semctl(id, 0, GETALL, (union semun){.array = values}));
    printf("values %d %d %d\n", values[0], values[1], values[2]);
    SAY(op(id, 0, 0, 0));
    SAY(op(id, 2, 0, IPC_NOWAIT));
    SAY(op(id, 3, 1, 0));
    SAY(op(id, 2, 32767, 0));
    SAY(op(id, 0, -1, IPC_NOWAIT));
    SAY(semctl(id, 2, SETVAL, (union semun){.val = 32768}));
    SAY(semctl(id, 3, SETVAL, (union semun){.val = 1}));
    SAY(semctl(id, 2, SETVAL, (union semun){.val = 0}));
    SAY(semctl(id, 2, GETPID) == getpid());
    SAY(semop(id, NULL, 1));
    SAY(semop(id, NULL, 0));
    SAY(semop(id, NULL, 501));
    SAY(semctl(id, 0, IPC_STAT, (union semun){.buf = &ds}));
    printf("semaphores %lu mode %o operated %d\n", (unsigned long)ds.sem_nsems, ds.sem_perm.mode, ds.sem_otime != 0);
    struct timespec soon = {0, 20000000};
    struct sembuf take = {1, -1, 0};
    SAY(semtimedop(id, &take, 1, &soon));

    /* Who waits is served in turn, and is counted meanwhile. */
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        children[i] = fork();
        if (children[i] == 0) _exit(i == 2 ? op(id, 2, 0, 0) != 0 : op(id, 0, -2, 0) != 0);
        pause_ms(40);
    }
    op(id, 2, 1, 0);
    pid_t zero = fork();
    if (zero == 0) _exit(op(id, 2, 0, 0) != 0);
    while (semctl(id, 0, GETNCNT) < 2 || semctl(id, 2, GETZCNT) < 1) pause_ms(2);
    printf("waiting %d %d\n", semctl(id, 0, GETNCNT), semctl(id, 2, GETZCNT));
    SAY(op(id, 0, 3, 0));
    int status;
    waitpid(children[0], &status, 0);
    printf("the first is served: %d, left %d\n", status, value(id, 0));
    SAY(op(id, 0, 1, 0));
    waitpid(children[1], &status, 0);
    printf("the second: %d, left %d\n", status, value(id, 0));
    SAY(op(id, 2, -1, 0));
    waitpid(zero, &status, 0);
    waitpid(children[2], &status, 0);
    printf("zero: %d\n", status);

    /* Undone at the end of a process, not of a thread, and not by a child. */
    op(id, 0, 5, 0);
    pid_t undone = fork();
    if (undone == 0) {
        op(id, 0, -3, SEM_UNDO);
        op(id, 1, 7, SEM_UNDO);
        if (fork() == 0) _exit(0);
        wait(NULL);
        printf("before its end %d %d\n", value(id, 0), value(id, 1));
        fflush(stdout);
        _exit(0);
    }
    waitpid(undone, NULL, 0);
    printf("after it %d %d\n", value(id, 0), value(id, 1));
    /* Killed while it waits. */
    pid_t killed = fork();
    if (killed == 0) {
        op(id, 0, -1, SEM_UNDO);
        op(id, 1, -1, 0);
        _exit(1);
    }
    while (semctl(id, 1, GETNCNT) < 1) pause_ms(2);
    printf("taken %d\n", value(id, 0));
    kill(killed, SIGKILL);
    waitpid(killed, &status, 0);
    printf("killed %d, given back %d, waiting %d\n", status, value(id, 0), semctl(id, 1, GETNCNT));

    /* A signal interrupts, whatever SA_RESTART says. */
    struct sigaction act = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &act, NULL);
    ualarm(30000, 0);
    SAY(op(id, 1, -1, 0));

    pid_t waits = fork();
    if (waits == 0) {
        op(id, 1, -1, 0);
        _exit(errno);
    }
    while (semctl(id, 1, GETNCNT) < 1) pause_ms(2);
    SAY(semctl(id, 0, IPC_RMID));
    waitpid(waits, &status, 0);
    printf("removed under it: %s\n", strerrorname_np(WEXITSTATUS(status)));
    SAY(semctl(id, 0, GETVAL));
}

struct message {
    long type;
    char text[100];
};

static int put(int id, long type, const char *text, int flags) {
    struct message message = {type, ""};
    strncpy(message.text, text, sizeof message.text - 1);
    return msgsnd(id, &message, strlen(text), flags);
}

static void take(int id, size_t most, long type, int flags) {
    struct message message = {0, ""};
    ssize_t n = msgrcv(id, &message, most, type, flags);
    if (n < 0)
        printf("take %zu %ld %o: %s\n", most, type, flags, strerrorname_np(errno));
    else
        printf("take %zu %ld %o: %ld %.*s\n", most, type, flags, message.type, (int)n, message.text);
}

static void messages(void) {
    struct msqid_ds ds;
    SAY(msgget(KEY, 0));
    int id = msgget(KEY, IPC_CREAT | 0600), status;
    SAY(id_ok(id));
    SAY(put(id, 0, "no type", 0));
    SAY(put(id, -1, "no type", 0));
    SAY(put(id, 4, "four", 0));
    SAY(put(id, 2, "two", 0));
    SAY(put(id, 9, "nine", 0));
    SAY(put(id, 2, "two again", 0));
    SAY(msgctl(id, IPC_STAT, &ds));
    printf("messages %lu bytes %lu of %lu sender %d receiver %d\n", ds.msg_qnum, ds.__msg_cbytes, ds.msg_qbytes,
           ds.msg_lspid == getpid(), ds.msg_lrpid);
    take(id, 100, 1, MSG_COPY | IPC_NOWAIT);
    take(id, 100, 9, MSG_COPY | IPC_NOWAIT);
    take(id, 100, 1, MSG_COPY);
    take(id, 100, 7, IPC_NOWAIT);
    take(id, 100, -3, 0);
    take(id, 100, 4, MSG_EXCEPT);
    take(id, 3, 0, 0);
    take(id, 3, 0, MSG_NOERROR);
    take(id, 100, 0, 0);
    take(id, 100, 0, IPC_NOWAIT);
    take(id, (size_t)-1, 0, IPC_NOWAIT);
    static char large[9000];
    SAY(msgsnd(id, large, 8193, 0));
    *(long *)large = 1;
    SAY(msgsnd(id, large, 8192, 0));
    SAY(msgsnd(id, large, 8192, 0));
    SAY(msgsnd(id, large, 1, IPC_NOWAIT));
    pid_t sender = fork();
    if (sender == 0) _exit(put(id, 5, "waited for room", 0) != 0);
    pause_ms(30);
    SAY(msgrcv(id, large, 8192, 0, 0));
    waitpid(sender, &status, 0);
    printf("sent %d\n", status);
    SAY(msgrcv(id, large, 8192, 0, 0));
    take(id, 100, 0, 0);
    pid_t receiver = fork();
    if (receiver == 0) {
        take(id, 100, 3, 0);
        fflush(stdout);
        _exit(0);
    }
    pause_ms(30);
    SAY(put(id, 1, "not for it", 0));
    put(id, 3, "for it", 0);
    waitpid(receiver, &status, 0);
    ds.msg_qbytes = 10000;
    SAY(msgctl(id, IPC_SET, &ds));
    SAY(msgctl(id, IPC_STAT, &ds));
    printf("takes %lu\n", ds.msg_qbytes);
    receiver = fork();
    if (receiver == 0) {
        take(id, 100, 77, 0);
        fflush(stdout);
        _exit(0);
    }
    pause_ms(30);
    msgctl(id, IPC_RMID, NULL);
    waitpid(receiver, &status, 0);
    SAY(put(id, 1, "gone", 0));
}

/* A line of /proc/sysvipc without what differs between machines: numbers of objects and processes, times, residence. */
static void listed(const char *kind, int fields) {
    char path[64], line[512];
    snprintf(path, sizeof path, "/proc/sysvipc/%s", kind);
    FILE *list = fopen(path, "r");
    if (!list) {
        printf("no %s\n", path);
        return;
    }
    if (fgets(line, sizeof line, list)) printf("%s", line);
    while (fgets(line, sizeof line, list)) {
        int key, id, mode, used = 0;
        if (sscanf(line, "%d %d %o%n", &key, &id, &mode, &used) < 3 || key != KEY) continue;
        printf("%s: %x %o, %zu bytes a line", kind, key, mode, strlen(line));
        char *rest = line + used;
        for (int i = 0; i < fields; i++) printf(" %ld", strtol(rest, &rest, 10));
        printf("\n");
    }
    fclose(list);
}

static void lists(void) {
    int shm = shmget(KEY, 12345, IPC_CREAT | 0604), sem = semget(KEY, 7, IPC_CREAT | 0604), msg = msgget(KEY, IPC_CREAT | 0604);
    put(msg, 1, "three", 0);
    listed("shm", 1);
    listed("sem", 1);
    listed("msg", 2);
    shmctl(shm, IPC_RMID, NULL);
    semctl(sem, 0, IPC_RMID);
    msgctl(msg, IPC_RMID, NULL);
}

static void by_others(void) {
    int shm = shmget(KEY, PAGE, IPC_CREAT | 0640), sem = semget(KEY, 1, IPC_CREAT | 0604), msg = msgget(KEY, IPC_CREAT | 0622);
    fflush(stdout);
    pid_t other = fork();
    if (other == 0) {
        struct shmid_ds ds;
        if (setgid(1234) || setuid(1234)) _exit(0);
        SAY((long)shmat(shm, NULL, SHM_RDONLY));
        SAY(shmget(KEY, 0, 0) == shm);
        SAY(shmget(KEY, 0, 0004));
        SAY(shmctl(shm, IPC_STAT, &ds));
        SAY(shmctl(shm, IPC_RMID, NULL));
        SAY(semctl(sem, 0, GETVAL));
        SAY(semctl(sem, 0, SETVAL, (union semun){.val = 1}));
        SAY(op(sem, 0, 1, 0));
        SAY(op(sem, 0, 0, 0));
        SAY(semctl(sem, 0, IPC_RMID));
        SAY(put(msg, 1, "may write", 0));
        take(msg, 100, 0, IPC_NOWAIT);
        SAY(msgctl(msg, IPC_RMID, NULL));
        fflush(stdout);
        _exit(0);
    }
    waitpid(other, NULL, 0);
    shmctl(shm, IPC_RMID, NULL);
    semctl(sem, 0, IPC_RMID);
    msgctl(msg, IPC_RMID, NULL);
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    /* What an earlier run that was stopped has left. */
    shmctl(shmget(KEY, 0, 0), IPC_RMID, NULL);
    semctl(semget(KEY, 0, 0), 0, IPC_RMID);
    msgctl(msgget(KEY, 0), IPC_RMID, NULL);
    if (geteuid() != 0 || msgget(KEY, IPC_CREAT | 0600) < 0) return 77;
    msgctl(msgget(KEY, 0), IPC_RMID, NULL);
    shared_memory();
    lock_in_shared_memory();
    semaphores();
    messages();
    lists();
    by_others();
    return 0;
}
