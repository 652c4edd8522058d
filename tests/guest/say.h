/* Runs an expression and prints it with its result and the error's name. Wants <errno.h>, <stdio.h> and <string.h>. */
#define SAY(expression)                                                                       \
    ({                                                                                        \
        errno = 0;                                                                            \
        long result = (long)(expression);                                                     \
        printf("%s = %ld %s\n", #expression, result, result < 0 ? strerrorname_np(errno) : ""); \
        result;                                                                               \
    })

/* Likewise for a descriptor, of which the number does not matter. */
#define OPENED(expression)                                                                    \
    ({                                                                                        \
        int opened_ = (expression);                                                           \
        printf("%s: %s\n", #expression, opened_ < 0 ? strerrorname_np(errno) : "open");       \
        opened_;                                                                              \
    })
