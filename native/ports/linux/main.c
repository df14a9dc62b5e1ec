/* edgehmn-device: a Linux machine that serves a host as a board does, with the same bytes, over a socket. It listens on
 * the loopback interface or on a Unix socket and nowhere else; from another machine it is reached through ssh. One host
 * at a time; what was learned stays between them, and in the file of --state beyond the end of the process. */
#define _POSIX_C_SOURCE 200809L

#include "device.h"
#include "threads.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define TICK_HZ 1000000u
#define SECTOR_BYTES 65536u /* of the simulated flash in the state file */
#define LEAST_SECTORS 4u    /* of a slot */
#define MOST_SECTORS 4096u
#define UNIT_BYTES 32u
#define ALIGNMENT 64u

static const char usage[] =
    "usage: edgehmn-device IMAGE (--listen PORT | --unix PATH) [--state FILE] [--threads N]\n"
    "Serve the model in the file IMAGE on port PORT of 127.0.0.1 (0: any that is free) or on the Unix socket PATH.\n"
    "FILE keeps what was learned; without it the state lives as long as the process.\n"
    "N threads share the products of large matrices; without it there is one.\n"
    "Exit codes: 2 usage, 4 no sound image or state file, 6 out of memory, 7 no place to listen, 13 cannot write.\n";

/* Exit codes, as of every command of edgehmn. */
enum { INTERNAL = 1, USAGE = 2, INVALID_FILE = 4, DOES_NOT_FIT = 6, NO_DEVICE = 7, CANNOT_WRITE = 13 };

static struct timespec started;
static int client = -1;
static int restarting;
static ehmn_pool *pool; /* NULL: one thread */

static void fail_for(int code, const char *name, const char *what, const char *why)
{
    fprintf(stderr, "edgehmn-device: %s: %s (%s)\n", name, what, why);
    exit(code);
}

static void fail(int code, const char *name, const char *what)
{
    fail_for(code, name, what, errno != 0 ? strerror(errno) : "refused");
}

static void timer_start(void)
{
    clock_gettime(CLOCK_MONOTONIC, &started);
}

static uint32_t timer_read(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    int64_t ns = (int64_t)(now.tv_sec - started.tv_sec) * 1000000000 + (now.tv_nsec - started.tv_nsec);
    return (uint32_t)(ns / (1000000000 / TICK_HZ));
}

/* What a host that hung up does not take is dropped: it asks again when it is back. */
static void send_all(const void *bytes, uint32_t count)
{
    const uint8_t *p = bytes;
    while (count > 0) {
        ssize_t sent = send(client, p, count, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            return;
        }
        p += sent;
        count -= (uint32_t)sent;
    }
}

static void restart(void)
{
    restarting = 1;
}

/* ---- The state file: flash as edgehmn_state.h wants it, in a mapped file */

/* Only what has reached the disk counts as written. */
static int32_t sync_range(const ehmn_flash *flash, uint32_t offset, uint32_t count)
{
    uint32_t page = (uint32_t)sysconf(_SC_PAGESIZE);
    uint32_t first = offset / page * page;
    uint8_t *base = flash->context;
    return msync(base + first, offset - first + count, MS_SYNC) == 0 ? EHMN_OK : EHMN_STATE_E_FLASH;
}

static ehmn_flash state_flash;

static int32_t erase(void *context, uint32_t offset)
{
    memset((uint8_t *)context + offset, 0xFF, SECTOR_BYTES);
    return sync_range(&state_flash, offset, SECTOR_BYTES);
}

static int32_t program(void *context, uint32_t offset, const void *bytes, uint32_t count)
{
    memcpy((uint8_t *)context + offset, bytes, count);
    return sync_range(&state_flash, offset, count);
}

/* Make a file of two slots, or take the one that is there, whatever model it was made for. */
static void open_state(const char *name, uint32_t delta_bytes)
{
    int file = open(name, O_RDWR | O_CREAT, 0600);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    struct stat facts;
    if (file < 0 || fcntl(file, F_SETLK, &lock) != 0 || fstat(file, &facts) != 0) {
        fail(CANNOT_WRITE, name, "cannot be opened, or serves another edgehmn-device");
    }
    uint32_t sectors = 2u * (delta_bytes / SECTOR_BYTES + 1u);
    sectors = sectors < LEAST_SECTORS ? LEAST_SECTORS : sectors;
    int fresh = facts.st_size == 0;
    if (!fresh) {
        sectors = facts.st_size / 2 / (off_t)SECTOR_BYTES > (off_t)MOST_SECTORS
            ? 0
            : (uint32_t)(facts.st_size / 2 / (off_t)SECTOR_BYTES);
    }
    off_t size = 2 * (off_t)sectors * (off_t)SECTOR_BYTES;
    errno = 0;
    if (sectors == 0 || sectors > MOST_SECTORS || (!fresh && size != facts.st_size)) {
        fail(INVALID_FILE, name, "is no state file");
    }
    if (fresh && (ftruncate(file, size) != 0 || (errno = posix_fallocate(file, 0, size)) != 0)) {
        fail(CANNOT_WRITE, name, "cannot be made");
    }
    void *base = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (base == MAP_FAILED) {
        fail(CANNOT_WRITE, name, "cannot be mapped");
    }
    ehmn_flash flash = {base, SECTOR_BYTES, sectors, UNIT_BYTES, erase, program, base};
    state_flash = flash;
}

/* ---- Memory, socket, service */

static const void *map_image(const char *name, uint32_t *bytes)
{
    int file = open(name, O_RDONLY | O_NONBLOCK); /* a pipe is not waited for */
    struct stat facts;
    if (file < 0 || fstat(file, &facts) != 0) {
        fail(errno == ENOENT ? USAGE : INVALID_FILE, name, "cannot be read");
    }
    if (!S_ISREG(facts.st_mode) || facts.st_size < (off_t)sizeof(ehmn_image) || facts.st_size > (off_t)INT32_MAX) {
        fail_for(INVALID_FILE, name, "is no image", S_ISREG(facts.st_mode) ? "by its size" : "and no file");
    }
    void *base = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (base == MAP_FAILED) {
        fail(INVALID_FILE, name, "cannot be mapped");
    }
    close(file);
    *bytes = (uint32_t)facts.st_size;
    int32_t status = ehmn_image_check(base, *bytes);
    if (status != EHMN_OK) {
        fail_for(INVALID_FILE, name, "is no sound image", ehmn_status_name(status));
    }
    return base;
}

static void *memory(uint32_t bytes)
{
    void *p = aligned_alloc(ALIGNMENT, ((size_t)bytes + ALIGNMENT - 1u) / ALIGNMENT * ALIGNMENT);
    if (p == NULL) {
        fail(DOES_NOT_FIT, "memory", "there is not enough");
    }
    return p;
}

static int listen_tcp(const char *word)
{
    char *end;
    unsigned long port = strtoul(word, &end, 10);
    errno = 0;
    if (*word == '\0' || *end != '\0' || port > 65535u) {
        fail(USAGE, word, "is no port");
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    int one = 1;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    if (server < 0 || setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0
        || bind(server, (struct sockaddr *)&address, size) != 0 || listen(server, 1) != 0
        || getsockname(server, (struct sockaddr *)&address, &size) != 0) {
        fail(NO_DEVICE, word, "cannot be listened on");
    }
    printf("socket://127.0.0.1:%u\n", (unsigned)ntohs(address.sin_port));
    return server;
}

static int listen_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    errno = 0;
    if (strlen(path) >= sizeof address.sun_path) {
        fail(USAGE, path, "is too long for a socket");
    }
    memcpy(address.sun_path, path, strlen(path));
    mode_t old = umask(0177); /* for its owner alone */
    int server = socket(AF_UNIX, SOCK_STREAM, 0);
    if (server < 0 || bind(server, (struct sockaddr *)&address, sizeof address) != 0 || listen(server, 1) != 0) {
        fail(NO_DEVICE, path, "cannot be listened on; if no edgehmn-device runs there, remove it");
    }
    umask(old);
    printf("unix://%s\n", path);
    return server;
}

static void start_threads(const char *word)
{
    char *end;
    unsigned long n = strtoul(word, &end, 10);
    errno = 0;
    if (*word == '\0' || *end != '\0' || n < 1u || n > EHMN_MAX_THREADS) {
        fail(USAGE, word, "is no number of threads, 1 to 64");
    }
    pool = ehmn_pool_start((uint32_t)n);
    if (pool == NULL) {
        fail(DOES_NOT_FIT, "threads", "cannot be started");
    }
}

static void start_device(ehmn_device *device, const ehmn_port *port)
{
    ehmn_device_start(device, port);
    if (pool != NULL && device->model != NULL) {
        ehmn_use_threads(device->model, ehmn_pool_parallel(pool));
    }
}

static void serve(ehmn_device *device, const ehmn_port *port)
{
    uint8_t bytes[4096];
    ssize_t n;
    while ((n = recv(client, bytes, sizeof bytes, 0)) > 0 || (n < 0 && errno == EINTR)) {
        for (ssize_t i = 0; i < n; i++) {
            ehmn_device_take(device, bytes[i]);
            if (restarting) {
                restarting = 0;
                start_device(device, port);
            }
        }
    }
}

int main(int argc, char **argv)
{
    static ehmn_device device;
    const char *image = NULL, *listen_on = NULL, *path = NULL, *state = NULL, *threads = NULL;
    for (int i = 1; i < argc; i++) {
        const char **value = strcmp(argv[i], "--listen") == 0 ? &listen_on
            : strcmp(argv[i], "--unix") == 0                  ? &path
            : strcmp(argv[i], "--state") == 0                 ? &state
            : strcmp(argv[i], "--threads") == 0               ? &threads
                                                              : NULL;
        if (value == NULL && image == NULL && argv[i][0] != '-') {
            image = argv[i];
        } else if (value == NULL || i + 1 == argc) {
            fputs(usage, stderr);
            return USAGE;
        } else {
            *value = argv[++i];
        }
    }
    if (image == NULL || (listen_on == NULL) == (path == NULL)) {
        fputs(usage, stderr);
        return USAGE;
    }
    ehmn_port port = {.board = "linux", .tick_hz = TICK_HZ, .timer_start = timer_start, .timer_read = timer_read,
                      .write = send_all, .restart = restart};
    uint32_t delta_bytes = 0;
    if (threads != NULL) {
        start_threads(threads);
    }
    port.image = map_image(image, &port.image_room);
    ehmn_arena_bytes(port.image, EHMN_PLASTIC, &port.arena_room);
    ehmn_delta_bytes(port.image, &delta_bytes);
    port.staging_room = delta_bytes < SECTOR_BYTES ? SECTOR_BYTES : (delta_bytes + 7u) & ~7u;
    port.arena = memory(port.arena_room + ALIGNMENT);
    port.staging = memory(port.staging_room);
    memset(port.staging, 0, port.staging_room);
    if (state != NULL) {
        open_state(state, delta_bytes);
        port.flash = &state_flash;
    }
    int server = listen_on != NULL ? listen_tcp(listen_on) : listen_unix(path);
    fflush(stdout);
    start_device(&device, &port);
    while ((client = accept(server, NULL, NULL)) >= 0 || errno == EINTR || errno == ECONNABORTED) {
        int one = 1;
        if (client >= 0) {
            setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            serve(&device, &port);
            close(client);
        }
    }
    fail(INTERNAL, "socket", "cannot be accepted on");
}
