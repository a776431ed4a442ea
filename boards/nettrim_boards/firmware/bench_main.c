/* Runs, checks and times one generated model on a hosted system (C99 and POSIX clocks); see nt_model.h for the macros.
 *
 *   bench selftest                      the model's own golden vector
 *   bench run INPUT OUTPUT              raw int8 samples in, raw int8 results out, any number of them
 *   bench time SECONDS INPUT [WINDOWS]  latency as JSON lines; 5 windows of at least SECONDS each
 *
 * Exit codes: 0 done, 1 the model reports an error, 2 wrong usage or a file that does not fit. */
#define _XOPEN_SOURCE 600

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "nt_model.h"

#define DEFAULT_WINDOWS 5
#define MAX_WINDOWS 1000
#define WARM_UP_RUNS 10
#define MAX_RECORDS ((size_t)1 << 20) /* 8 MB; beyond it every second record is dropped, then every fourth, ... */
#define NS_PER_SECOND 1000000000

#if defined(__aarch64__) /* moves that do nothing: the emulator's plugin counts the instructions between the two */
#define MARK_BEGIN() __asm__ volatile("orr x27, x27, x27" ::: "memory")
#define MARK_END() __asm__ volatile("orr x28, x28, x28" ::: "memory")
#else
#define MARK_BEGIN() ((void)0)
#define MARK_END() ((void)0)
#endif

static MODEL_ALIGNED uint8_t arena[MODEL_ARENA_BYTES];
static MODEL_ALIGNED int8_t sample[MODEL_INPUT_SIZE];
static MODEL_ALIGNED int8_t result[MODEL_OUTPUT_SIZE];
static int64_t records_ns[MAX_RECORDS];

/* Not inlined: what the compiler could move out of the loop over samples belongs to a run. */
static __attribute__((noinline)) int run_model(const int8_t *input, int8_t *output)
{
    int status;
    MARK_BEGIN();
    status = MODEL_RUN(input, output, arena);
    MARK_END();
    return status;
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_SECOND + (int64_t)now.tv_nsec;
}

/* CRC-32 of zlib and IEEE 802.3 (reflected polynomial 0xEDB88320), bit by bit: it is not timed. */
static uint32_t crc32(uint32_t crc, const int8_t *bytes, size_t count)
{
    size_t i;
    int bit;
    crc = ~crc;
    for (i = 0; i < count; i++) {
        crc ^= (uint8_t)bytes[i];
        for (bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

static int fail(const char *what, const char *name)
{
    fprintf(stderr, "bench: %s: %s\n", name, what);
    return 2;
}

static int report_status(int status)
{
    fprintf(stderr, "bench: the model returned error %d\n", status);
    return 1;
}

static int selftest(void)
{
    const int status = MODEL_SELFTEST(arena);
    printf("{\"event\": \"selftest\", \"status\": %d}\n", status);
    return status == 0 ? 0 : 1;
}

static int run_stream(FILE *input, const char *input_name, FILE *output, const char *output_name)
{
    size_t count;
    while ((count = fread(sample, 1, MODEL_INPUT_SIZE, input)) == MODEL_INPUT_SIZE) {
        const int status = run_model(sample, result);
        if (status != 0) {
            return report_status(status);
        }
        if (fwrite(result, 1, MODEL_OUTPUT_SIZE, output) != MODEL_OUTPUT_SIZE) {
            return fail(strerror(errno), output_name);
        }
    }
    if (ferror(input)) {
        return fail(strerror(errno), input_name);
    }
    return count == 0 ? 0 : fail("its size is not a multiple of the model's input", input_name);
}

static int run_files(const char *input_name, const char *output_name)
{
    int exit_code;
    FILE *output;
    FILE *input = fopen(input_name, "rb");
    if (input == NULL) {
        return fail(strerror(errno), input_name);
    }
    output = fopen(output_name, "wb");
    if (output == NULL) {
        exit_code = fail(strerror(errno), output_name);
        fclose(input);
        return exit_code;
    }
    exit_code = run_stream(input, input_name, output, output_name);
    fclose(input);
    if (fclose(output) != 0 && exit_code == 0) {
        exit_code = fail(strerror(errno), output_name);
    }
    return exit_code;
}

/* The whole file, or NULL after a message; *n_samples is at least 1. */
static int8_t *read_samples(const char *name, size_t *n_samples)
{
    int8_t *samples = NULL;
    long size = -1;
    FILE *file = fopen(name, "rb");
    if (file != NULL && fseek(file, 0, SEEK_END) == 0) {
        size = ftell(file);
        rewind(file);
    }
    if (size < 0) {
        fail(strerror(errno), name);
    } else if (size == 0 || (size_t)size % MODEL_INPUT_SIZE != 0) {
        fail("its size is not a multiple of the model's input, or zero", name);
    } else {
        samples = malloc((size_t)size);
        if (samples == NULL || fread(samples, 1, (size_t)size, file) != (size_t)size) {
            fail("cannot be read into memory", name);
            free(samples);
            samples = NULL;
        }
        *n_samples = (size_t)size / MODEL_INPUT_SIZE;
    }
    if (file != NULL) {
        fclose(file);
    }
    return samples;
}

static int ascending(const void *first, const void *second)
{
    const int64_t a = *(const int64_t *)first;
    const int64_t b = *(const int64_t *)second;
    return (a > b) - (a < b);
}

/* Nearest rank: the smallest record that `percent` of all records do not exceed. */
static long long percentile(size_t count, size_t percent)
{
    const size_t rank = (count * percent + 99) / 100;
    return (long long)records_ns[rank == 0 ? 0 : rank - 1];
}

static int time_window(int index, int64_t window_ns, const int8_t *samples, size_t n_samples)
{
    size_t kept = 0, stride = 1, runs = 0, at = 0, i;
    const int64_t start = now_ns();
    int64_t before = start, after = start;
    while (after - start < window_ns || runs == 0) {
        int status;
        before = now_ns();
        status = run_model(samples + at * MODEL_INPUT_SIZE, result);
        after = now_ns();
        if (status != 0) {
            return report_status(status);
        }
        at = at + 1 == n_samples ? 0 : at + 1;
        if (runs % stride == 0) {
            if (kept == MAX_RECORDS) {
                for (i = 0; i < MAX_RECORDS / 2; i++) {
                    records_ns[i] = records_ns[2 * i];
                }
                kept = MAX_RECORDS / 2;
                stride *= 2;
            }
            records_ns[kept++] = after - before;
        }
        runs++;
    }
    qsort(records_ns, kept, sizeof records_ns[0], ascending);
    printf("{\"event\": \"window\", \"index\": %d, \"runs\": %lu, \"seconds\": %.6f, \"min_ns\": %lld, \"p50_ns\": %lld, "
           "\"p90_ns\": %lld, \"p99_ns\": %lld}\n",
           index, (unsigned long)runs, (double)(after - start) / NS_PER_SECOND, (long long)records_ns[0],
           percentile(kept, 50), percentile(kept, 90), percentile(kept, 99));
    fflush(stdout);
    return 0;
}

/* First run apart, then every sample once (its bits make the checksum), then warm-up runs. */
static int time_first_runs(const int8_t *samples, size_t n_samples)
{
    uint32_t input_crc = 0, output_crc = 0;
    int64_t start = now_ns();
    int status = run_model(samples, result);
    const long long first_ns = (long long)(now_ns() - start);
    size_t i;
    printf("{\"event\": \"first_run\", \"latency_ns\": %lld}\n", first_ns);
    for (i = 0; i < n_samples && status == 0; i++) {
        status = run_model(samples + i * MODEL_INPUT_SIZE, result);
        input_crc = crc32(input_crc, samples + i * MODEL_INPUT_SIZE, MODEL_INPUT_SIZE);
        output_crc = crc32(output_crc, result, MODEL_OUTPUT_SIZE);
    }
    start = now_ns();
    for (i = 0; i < WARM_UP_RUNS && status == 0; i++) {
        status = run_model(samples, result);
    }
    if (status != 0) {
        return report_status(status);
    }
    printf("{\"event\": \"warm_up\", \"runs\": %d, \"seconds\": %.6f}\n", WARM_UP_RUNS,
           (double)(now_ns() - start) / NS_PER_SECOND);
    printf("{\"event\": \"result\", \"samples\": %lu, \"input_crc32\": \"%08lx\", \"output_crc32\": \"%08lx\"}\n",
           (unsigned long)n_samples, (unsigned long)input_crc, (unsigned long)output_crc);
    return 0;
}

static void report_memory(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__) /* bytes there, KiB elsewhere */
    printf("{\"event\": \"memory\", \"peak_rss_bytes\": %lld}\n", (long long)usage.ru_maxrss);
#else
    printf("{\"event\": \"memory\", \"peak_rss_bytes\": %lld}\n", (long long)usage.ru_maxrss * 1024);
#endif
}

static int time_model(const char *seconds_text, const char *input_name, const char *windows_text)
{
    char *end;
    size_t n_samples = 0;
    int index, exit_code;
    int8_t *samples;
    const double seconds = strtod(seconds_text, &end);
    const long windows = windows_text == NULL ? DEFAULT_WINDOWS : strtol(windows_text, NULL, 10);
    if (*end != '\0' || !(seconds > 0.0) || seconds > 1e6) {
        return fail("SECONDS is not a positive number", seconds_text);
    }
    if (windows < 1 || windows > MAX_WINDOWS) {
        return fail("WINDOWS is not between 1 and 1000", windows_text);
    }
    samples = read_samples(input_name, &n_samples);
    if (samples == NULL) {
        return 2;
    }
    exit_code = time_first_runs(samples, n_samples);
    report_memory(); /* before the windows: their records are not the model's */
    for (index = 0; index < windows && exit_code == 0; index++) {
        exit_code = time_window(index, (int64_t)(seconds * NS_PER_SECOND), samples, n_samples);
    }
    free(samples);
    return exit_code;
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "selftest") == 0) {
        return selftest();
    }
    if (argc == 4 && strcmp(argv[1], "run") == 0) {
        return run_files(argv[2], argv[3]);
    }
    if ((argc == 4 || argc == 5) && strcmp(argv[1], "time") == 0) {
        return time_model(argv[2], argv[3], argc == 5 ? argv[4] : NULL);
    }
    fputs("usage: bench selftest | bench run INPUT OUTPUT | bench time SECONDS INPUT [WINDOWS]\n", stderr);
    return 2;
}
