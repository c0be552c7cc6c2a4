/*
 * Loaded into user-mode Linux (LD_PRELOAD) on hosts whose processors have AMX.
 *
 * User-mode Linux 6.1 has room for the 2696 bytes of a process's extended state that processors had then. With AMX there are
 * 11 KB: Linux gives out the first part of it, but takes it back only whole (EFAULT, xstateregs_set() in
 * arch/x86/kernel/fpu/regset.c), and no guest starts. So the rest is put behind what user-mode Linux knows: as it is. Guests
 * cannot use AMX: who does must ask the kernel first, and theirs does not know of it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

typedef long ptrace_t(enum __ptrace_request, ...);

/* Not on the stack: user-mode Linux's own are of a few pages. It has one thread that gets here. */
static char whole[65536];

long ptrace(enum __ptrace_request request, ...)
{
	static ptrace_t *real;
	va_list rest;
	va_start(rest, request);
	pid_t pid = va_arg(rest, pid_t);
	void *address = va_arg(rest, void *);
	void *data = va_arg(rest, void *);
	va_end(rest);

	if (!real)
		real = (ptrace_t *)dlsym(RTLD_NEXT, "ptrace");
	long done = real(request, pid, address, data);
	if (done == 0 || errno != EFAULT || request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE)
		return done;

	struct iovec *known = data;
	struct iovec all = { whole, sizeof whole };
	if (real(PTRACE_GETREGSET, pid, address, &all) != 0 || all.iov_len <= known->iov_len)
		return done;
	memcpy(whole, known->iov_base, known->iov_len);
	return real(PTRACE_SETREGSET, pid, address, &all);
}
