"""The compiled twin of `locks.py`: as much of `threading.Lock` as we and `Condition` use, in C.

While another thread has the lock the GIL is given up, else it is kept. `acquire` handles signals
after a wait, not in it: nobody has one of these locks for long but who waits in `hand_over`.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pythread cimport (
    NOWAIT_LOCK,
    PY_LOCK_ACQUIRED,
    PY_LOCK_INTR,
    WAIT_LOCK,
    PyLockStatus,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_release_lock,
    PyThread_type_lock,
)

from time import monotonic

cdef extern from "pythread.h":
    PyLockStatus PyThread_acquire_lock_timed(
        PyThread_type_lock lock, long long microseconds, int interruptible
    ) nogil

__all__ = ["Lock", "hand_over"]

cdef double _LONGEST = 1e15  # microseconds: 30 years


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


cpdef bint hand_over(Lock following, Lock mine, seconds) except -1:
    """Give back `following` and wait for `mine`; see the Python twin."""
    cdef PyThread_type_lock given = NULL
    cdef long long left = -1
    cdef double until = 0.0
    cdef PyLockStatus status
    if following is not None and following._locked:
        following._locked = False
        given = following._lock
    if seconds is not None:
        until = <double> monotonic() + <double> seconds
        left = _microseconds(seconds)
    while True:
        with nogil:
            if given is not NULL:
                PyThread_release_lock(given)
                given = NULL
            status = PyThread_acquire_lock_timed(mine._lock, left, 1)
        if status == PY_LOCK_ACQUIRED:
            break
        PyErr_CheckSignals()  # also where none came in the wait: one may have come before
        if status != PY_LOCK_INTR:
            break
        if seconds is not None:
            left = _microseconds(until - <double> monotonic())
    if status == PY_LOCK_ACQUIRED:
        mine._locked = True
    return status == PY_LOCK_ACQUIRED


cdef long long _microseconds(double seconds):
    return <long long> min(max(seconds * 1e6, 0.0), _LONGEST)
