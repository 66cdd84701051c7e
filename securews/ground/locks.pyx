"""The compiled twin of `locks.py`: as much of `threading.Lock` as we and `Condition` use, in C.

While another thread has the lock the GIL is given up, else it is kept. Signals are handled after a
wait, not in it: nobody has one of these locks for long.
"""

from cpython.pythread cimport (
    NOWAIT_LOCK,
    WAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
)

__all__ = ["Lock"]


cdef class Lock:
    """A lock that any thread may take, and any thread may give back."""

    def __cinit__(self):
        self._lock = PyThread_allocate_lock()
        if self._lock is NULL:
            raise MemoryError("the system has no lock left")

    def __dealloc__(self):
        if self._lock is not NULL:
            PyThread_free_lock(self._lock)

    cpdef bint acquire(self, bint blocking=True) except -1:
        """Take the lock. False: another thread has it, and we are not to wait."""
        cdef bint taken = PyThread_acquire_lock(self._lock, NOWAIT_LOCK)
        if not taken and blocking:
            with nogil:
                taken = PyThread_acquire_lock(self._lock, WAIT_LOCK)
        if taken:
            self._locked = True
        return taken

    cpdef release(self):
        """Give it back; RuntimeError if nobody has it."""
        if not self._locked:
            raise RuntimeError("release unlocked lock")
        self._locked = False
        PyThread_release_lock(self._lock)

    def locked(self):
        """Whether somebody has it."""
        return self._locked

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *error):
        self.release()
