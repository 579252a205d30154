/*
 * blockrec IMAGE LOG MOUNT_POINT: a FUSE file system with two files, in the foreground until it is unmounted.
 *
 * `disk` is the image; every write and flush of it is appended to the log. What is written to `mark` is appended as a
 * mark. A file system that is loop-mounted from `disk` leaves in the log all that is needed to build any state in which
 * a power cut could have left the device: a prefix, in which each write after the last flush came, did not, or in part.
 *
 * The idea is that of dm-log-writes and CrashMonkey (Mohan et al., OSDI 2018), without device-mapper.
 */
#define FUSE_USE_VERSION 31
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRITE = 'W', FLUSH = 'F', MARK = 'M' };

static const char *const DISK = "/disk", *const MARKS = "/mark";
static int image;
static off_t image_size;
static FILE *records;

static int record(char kind, uint64_t offset, const char *data, uint32_t size)
{
    int is_whole = fwrite(&kind, sizeof kind, 1, records) == 1 && fwrite(&offset, sizeof offset, 1, records) == 1 &&
                   fwrite(&size, sizeof size, 1, records) == 1 && (!size || fwrite(data, size, 1, records) == 1);
    return is_whole && fflush(records) == 0 ? 0 : -EIO;
}

static int get_attributes(const char *path, struct stat *found, struct fuse_file_info *info)
{
    (void)info;
    memset(found, 0, sizeof *found);
    if (!strcmp(path, "/")) {
        found->st_mode = S_IFDIR | 0700;
        found->st_nlink = 2;
        return 0;
    }
    found->st_mode = S_IFREG | 0600;
    found->st_nlink = 1;
    if (!strcmp(path, DISK))
        found->st_size = image_size;
    else if (strcmp(path, MARKS))
        return -ENOENT;
    return 0;
}

static int open_file(const char *path, struct fuse_file_info *info)
{
    (void)path;
    info->direct_io = 1; /* the kernel keeps nothing back: what it wrote is here when it flushes */
    return 0;
}

static int read_file(const char *path, char *data, size_t size, off_t at, struct fuse_file_info *info)
{
    (void)info;
    if (strcmp(path, DISK))
        return 0;
    ssize_t got = pread(image, data, size, at);
    return got < 0 ? -errno : (int)got;
}

static int write_file(const char *path, const char *data, size_t size, off_t at, struct fuse_file_info *info)
{
    (void)info;
    int failure;
    if (!strcmp(path, MARKS)) {
        failure = record(MARK, 0, data, (uint32_t)size);
        return failure ? failure : (int)size;
    }
    if (at + (off_t)size > image_size)
        return -ENOSPC;
    if ((failure = record(WRITE, (uint64_t)at, data, (uint32_t)size)))
        return failure;
    ssize_t put = pwrite(image, data, size, at);
    return put < 0 ? -errno : (int)put;
}

static int flush_file(const char *path, int only_data, struct fuse_file_info *info)
{
    (void)only_data, (void)info;
    return strcmp(path, DISK) ? 0 : record(FLUSH, 0, NULL, 0);
}

static int truncate_file(const char *path, off_t size, struct fuse_file_info *info)
{
    (void)path, (void)size, (void)info;
    return 0;
}

static const struct fuse_operations operations = {
    .getattr = get_attributes,
    .open = open_file,
    .read = read_file,
    .write = write_file,
    .fsync = flush_file,
    .truncate = truncate_file,
};

int main(int count, char **arguments)
{
    if (count != 4) {
        fprintf(stderr, "usage: blockrec IMAGE LOG MOUNT_POINT\n");
        return 2;
    }
    struct stat found;
    image = open(arguments[1], O_RDWR | O_CLOEXEC);
    records = fopen(arguments[2], "wbe");
    if (image < 0 || !records || fstat(image, &found)) {
        perror("blockrec");
        return 1;
    }
    image_size = found.st_size;
    char *fuse_arguments[] = {arguments[0], arguments[3], "-f", "-s", NULL};
    return fuse_main(4, fuse_arguments, &operations, NULL);
}
