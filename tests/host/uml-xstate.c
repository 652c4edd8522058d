// Lets User-Mode Linux before 6.13 run where the processor's extended state is larger than it knows (AMX): it hands back the part
// that it has room for, and the host wants all of it. Preloaded; what it does not know of keeps its initial value.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

// Where XSTATE_BV lies in the XSAVE area, and the components that the kernel knows: all up to AVX-512, and PKRU.
enum { XSTATE_BV = 512, KNOWN = 0x2ff };

long ptrace(enum __ptrace_request request, ...)
{
    va_list list;
    va_start(list, request);
    long pid = va_arg(list, long);
    void *addr = va_arg(list, void *);
    void *data = va_arg(list, void *);
    va_end(list);
    long (*host)(int, ...) = (long (*)(int, ...))dlsym(RTLD_NEXT, "ptrace");
    if (request == PTRACE_SETREGSET && (long)addr == NT_X86_XSTATE) {
        static _Thread_local char state[1 << 16];
        struct iovec whole = { state, sizeof state };
        const struct iovec *given = data;
        if (host(PTRACE_GETREGSET, pid, addr, &whole) == 0 && given->iov_len < whole.iov_len) {
            uint64_t present;
            memcpy(state, given->iov_base, given->iov_len);
            memcpy(&present, state + XSTATE_BV, sizeof present);
            present &= KNOWN;
            memcpy(state + XSTATE_BV, &present, sizeof present);
            return host(request, pid, addr, &whole);
        }
    }
    return host(request, pid, addr, data);
}
