/* Calls of the system on files below a folder: counted, and the Nth of them fails or kills the process.
 *
 * The state is shared by all processes of a command: a file of five numbers, whose path is in FAULTS_STATE; the folder
 * is in FAULTS_FOLDER. Numbers: calls so far; the call that fails, 0 for none; the error number, 0 for SIGKILL; whether
 * all later calls fail too; faults so far. A fault that kills comes in the middle of a write.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CALLS, AT, ERROR, ONWARD, FAULTS, NUMBERS };

static volatile int64_t *state;
static char folder[4096];
static size_t folder_length;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("FAULTS_STATE"), *root = getenv("FAULTS_FOLDER");
    if (path == NULL || root == NULL || strlen(root) >= sizeof folder)
        return;
    int (*open_file)(const char *, int, ...) = dlsym(RTLD_NEXT, "open");
    int descriptor = open_file(path, O_RDWR | O_CLOEXEC);
    if (descriptor < 0)
        return;
    strcpy(folder, root);
    folder_length = strlen(folder);
    void *shared = mmap(NULL, NUMBERS * sizeof(int64_t), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    close(descriptor);
    if (shared != MAP_FAILED)
        state = shared;
}

static int is_below(const char *path)
{
    return state != NULL && strncmp(path, folder, folder_length) == 0 &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

static int descriptor_below(int descriptor)
{
    char link[64], path[4096];
    int before = errno;
    if (state == NULL)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_below(path);
}

static int path_below(int at, const char *path)
{
    char whole[8192], link[64];
    int before = errno;
    if (state == NULL || path == NULL)
        return 0;
    if (path[0] == '/')
        return is_below(path);
    if (at == AT_FDCWD)
        strcpy(link, "/proc/self/cwd");
    else
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
    ssize_t length = readlink(link, whole, sizeof whole / 2 - 1);
    errno = before;
    if (length < 0 || strlen(path) >= sizeof whole / 2)
        return 0;
    whole[length] = '/';
    strcpy(whole + length + 1, path);
    return is_below(whole);
}

/* Whether this call fails: 1 if the first of its kind does, 2 if a call before it has failed. */
static int fault(void)
{
    int64_t number = __atomic_add_fetch(&state[CALLS], 1, __ATOMIC_SEQ_CST), at = state[AT];
    if (at == 0 || number < at || (number > at && !state[ONWARD]))
        return 0;
    __atomic_add_fetch(&state[FAULTS], 1, __ATOMIC_SEQ_CST);
    errno = (int)state[ERROR];
    return number == at ? 1 : 2;
}

static void fail(void)
{
    if (state[ERROR] == 0)
        kill(getpid(), SIGKILL);
    errno = (int)state[ERROR];
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (real == NULL) \
        real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define ON_DESCRIPTOR(type, name, parameters, arguments, descriptor) \
    type name parameters \
    { \
        REAL(name); \
        if (descriptor_below(descriptor) && fault()) { \
            fail(); \
            return -1; \
        } \
        return real arguments; \
    }

#define ON_PATH(type, failed, name, parameters, arguments, at, path) \
    type name parameters \
    { \
        REAL(name); \
        if (path_below(at, path) && fault()) { \
            fail(); \
            return failed; \
        } \
        return real arguments; \
    }

/* The first write that fails for good, or kills, has written the half before, as on a full disk. */
ssize_t write(int descriptor, const void *data, size_t size)
{
    REAL(write);
    int kind = descriptor_below(descriptor) ? fault() : 0;
    if (kind == 0)
        return real(descriptor, data, size);
    if (kind == 1 && size > 1 && (state[ERROR] == 0 || state[ONWARD])) {
        ssize_t written = real(descriptor, data, size / 2);
        if (state[ERROR] != 0)
            return written;
    }
    fail();
    return -1;
}

ON_DESCRIPTOR(ssize_t, pwrite, (int f, const void *d, size_t n, off_t o), (f, d, n, o), f)
ON_DESCRIPTOR(ssize_t, pwrite64, (int f, const void *d, size_t n, off64_t o), (f, d, n, o), f)
ON_DESCRIPTOR(ssize_t, writev, (int f, const struct iovec *v, int n), (f, v, n), f)
ON_DESCRIPTOR(ssize_t, sendfile, (int f, int g, off_t *o, size_t n), (f, g, o, n), f)
ON_DESCRIPTOR(ssize_t, sendfile64, (int f, int g, off64_t *o, size_t n), (f, g, o, n), f)
ON_DESCRIPTOR(ssize_t, copy_file_range, (int g, off64_t *p, int f, off64_t *o, size_t n, unsigned m), (g, p, f, o, n, m), f)
ON_DESCRIPTOR(int, fsync, (int f), (f), f)
ON_DESCRIPTOR(int, fdatasync, (int f), (f), f)
ON_DESCRIPTOR(int, ftruncate, (int f, off_t n), (f, n), f)
ON_DESCRIPTOR(int, ftruncate64, (int f, off64_t n), (f, n), f)
ON_PATH(int, -1, rename, (const char *a, const char *b), (a, b), AT_FDCWD, b)
ON_PATH(int, -1, renameat, (int i, const char *a, int j, const char *b), (i, a, j, b), j, b)
ON_PATH(int, -1, link, (const char *a, const char *b), (a, b), AT_FDCWD, b)
ON_PATH(int, -1, linkat, (int i, const char *a, int j, const char *b, int f), (i, a, j, b, f), j, b)
ON_PATH(int, -1, symlink, (const char *a, const char *b), (a, b), AT_FDCWD, b)
ON_PATH(int, -1, mkdir, (const char *p, mode_t m), (p, m), AT_FDCWD, p)
ON_PATH(int, -1, mkdirat, (int i, const char *p, mode_t m), (i, p, m), i, p)
ON_PATH(int, -1, creat, (const char *p, mode_t m), (p, m), AT_FDCWD, p)

/* A full disk can still be read: with all later calls, only opening to write fails. */
#define COUNTED(flags) (!state[ONWARD] || ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)))

#define FOPEN(name) \
    FILE *name(const char *path, const char *mode) \
    { \
        REAL(name); \
        int writes = mode[strcspn(mode, "wa+")] != 0; \
        if (path_below(AT_FDCWD, path) && COUNTED(writes ? O_WRONLY : O_RDONLY) && fault()) { \
            fail(); \
            return NULL; \
        } \
        return real(path, mode); \
    }

FOPEN(fopen)
FOPEN(fopen64)

#define MODE(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        REAL(name); \
        MODE(flags) \
        if (path_below(AT_FDCWD, path) && COUNTED(flags) && fault()) { \
            fail(); \
            return -1; \
        } \
        return real(path, flags, mode); \
    }

#define OPEN_AT(name) \
    int name(int at, const char *path, int flags, ...) \
    { \
        REAL(name); \
        MODE(flags) \
        if (path_below(at, path) && COUNTED(flags) && fault()) { \
            fail(); \
            return -1; \
        } \
        return real(at, path, flags, mode); \
    }

OPEN(open)
OPEN(open64)
OPEN_AT(openat)
OPEN_AT(openat64)
