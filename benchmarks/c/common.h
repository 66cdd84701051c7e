/* What both programs share: how they end, clocks, reading of numbers. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include <stdint.h>
#include <sys/types.h>

/* A measurement that is wrong in part is wrong: the first fault ends the program, exit status 1. */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Monotonic time in nanoseconds. */
uint64_t now_ns(void);

/* CPU time, in nanoseconds, that all threads of a process have used; 0 is this process. */
uint64_t cpu_ns(pid_t pid);

/* Raises the soft limit on descriptors to the hard one; says how many that is. */
uint64_t raise_descriptors(void);

/* A whole number from the command line; fails, naming the option, outside of least to most. */
long parse_number(const char *option, const char *text, long least, long most);

/* Seconds, with a fraction, from the command line, as nanoseconds. */
uint64_t parse_seconds(const char *option, const char *text);

#endif
